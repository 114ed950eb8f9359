/** SSHSIG, the signatures of `ssh-keygen -Y sign` (OpenSSH's PROTOCOL.sshsig). */

import { createHash } from "node:crypto";

import { string, uint32 } from "./ssh-bytes.js";

const MAGIC = Buffer.from("SSHSIG");
const NAMESPACE = "artcafe";
const HASH = "sha512";
const LINE_CHARS = 70;

/** Return the bytes that the key signs, for a message. */
export function signedData(message: string): Buffer {
	const digest = createHash(HASH).update(message, "utf8").digest();
	return Buffer.concat([MAGIC, string(NAMESPACE), string(""), string(HASH), string(digest)]);
}

/** Return the armored signature. `keyBlob` is the public key and `signature` the signature blob, in SSH's formats. */
export function armor(keyBlob: Buffer, signature: Buffer): string {
	const blob = Buffer.concat([MAGIC, uint32(1), string(keyBlob), string(NAMESPACE), string(""), string(HASH), string(signature)]);
	const lines = blob.toString("base64").match(new RegExp(`.{1,${LINE_CHARS}}`, "g")) ?? [];
	return ["-----BEGIN SSH SIGNATURE-----", ...lines, "-----END SSH SIGNATURE-----", ""].join("\n");
}
