/** Private and public keys: from OpenSSH's formats to those of node:crypto and back. */

import { createPrivateKey, sign, type JsonWebKey, type KeyObject } from "node:crypto";

import { ArtcafeError, keyUnusable } from "../errors.js";
import { mpint, SshReader, string } from "./ssh-bytes.js";

const OPENSSH = /-----BEGIN OPENSSH PRIVATE KEY-----([\s\S]*?)-----END OPENSSH PRIVATE KEY-----/;
const OPENSSH_MAGIC = "openssh-key-v1\0";
const USE_SSH_AGENT = "ssh-add it and name its .pub file, so that ssh-agent signs";

/** The curves of ECDSA keys: SSH's name, JWK's name, and the hash of signatures (RFC 5656, section 6.2.1). */
const CURVES = [
	{ ssh: "nistp256", jwk: "P-256", hash: "sha256", bytes: 32 },
	{ ssh: "nistp384", jwk: "P-384", hash: "sha384", bytes: 48 },
	{ ssh: "nistp521", jwk: "P-521", hash: "sha512", bytes: 66 },
] as const;

/** Return the private key in a file's text. Throws `key_unusable`, and `key_locked` for one with a passphrase. */
export function parsePrivateKey(name: string, text: string): KeyObject {
	const openssh = OPENSSH.exec(text)?.[1];
	try {
		return openssh === undefined ? createPrivateKey(text) : createPrivateKey({ format: "jwk", key: openSshKey(name, Buffer.from(openssh, "base64")) });
	} catch (error) {
		if (error instanceof ArtcafeError) throw error;
		const code = error instanceof Error && "code" in error ? error.code : undefined;
		if (code === "ERR_MISSING_PASSPHRASE" || /ENCRYPTED/.test(text)) throw locked(name);
		throw keyUnusable(`${name} is damaged, or not a key of Ed25519, ECDSA or RSA`, error);
	}
}

function locked(name: string): ArtcafeError {
	return new ArtcafeError("key_locked", `${name} has a passphrase, which this SDK cannot use: ${USE_SSH_AGENT}`);
}

/** Return the key of OpenSSH's own format (PROTOCOL.key). */
function openSshKey(name: string, bytes: Buffer): JsonWebKey {
	const outer = new SshReader(bytes);
	if (outer.take(OPENSSH_MAGIC.length).toString("latin1") !== OPENSSH_MAGIC) throw new RangeError("not OpenSSH's format");
	const cipher = outer.text();
	outer.string(); // the key derivation function
	outer.string(); // and its options
	if (cipher !== "none") throw locked(name);
	if (outer.uint32() !== 1) throw keyUnusable(`${name} has several keys; give each agent its own file`);
	outer.string(); // the public key, which the private part has too
	const inner = new SshReader(outer.string());
	if (inner.uint32() !== inner.uint32()) throw new RangeError("the check numbers differ");
	const type = inner.text();
	if (type === "ssh-ed25519") return ed25519Key(inner);
	if (type === "ssh-rsa") return rsaKey(inner);
	const curve = CURVES.find(({ ssh }) => type === `ecdsa-sha2-${ssh}`);
	if (curve !== undefined) return ecdsaKey(inner, curve);
	throw keyUnusable(`${name} is a ${type} key, which cannot be loaded; ${USE_SSH_AGENT}`);
}

function ed25519Key(inner: SshReader): JsonWebKey {
	const x = inner.string();
	const d = inner.string().subarray(0, 32);
	return { kty: "OKP", crv: "Ed25519", x: x.toString("base64url"), d: d.toString("base64url") };
}

function ecdsaKey(inner: SshReader, { jwk, bytes }: (typeof CURVES)[number]): JsonWebKey {
	inner.string(); // the curve's name
	const point = inner.string(); // 4, x, y
	const d = padded(inner.string(), bytes);
	return {
		kty: "EC",
		crv: jwk,
		x: point.subarray(1, 1 + bytes).toString("base64url"),
		y: point.subarray(1 + bytes).toString("base64url"),
		d: d.toString("base64url"),
	};
}

function rsaKey(inner: SshReader): JsonWebKey {
	const [n, e, d, qi, p, q] = Array.from({ length: 6 }, () => numberOf(inner.string())) as [bigint, bigint, bigint, bigint, bigint, bigint];
	const text = (value: bigint): string => bytesOf(value).toString("base64url");
	return { kty: "RSA", n: text(n), e: text(e), d: text(d), p: text(p), q: text(q), dp: text(d % (p - 1n)), dq: text(d % (q - 1n)), qi: text(qi) };
}

function numberOf(bytes: Buffer): bigint {
	return bytes.length === 0 ? 0n : BigInt(`0x${bytes.toString("hex")}`);
}

function bytesOf(value: bigint): Buffer {
	const hex = value.toString(16);
	return Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, "hex");
}

function padded(bytes: Buffer, size: number): Buffer {
	const digits = bytes.length > size ? bytes.subarray(bytes.length - size) : bytes;
	return Buffer.concat([Buffer.alloc(size - digits.length), digits]);
}

// --- the public half, and signing ---------------------------------------------------------------------------------------

/** A private key with the names and formats of SSH. */
export interface SshKey {
	type: string;
	/** The public key blob. */
	blob: Buffer;
	/** Return the signature blob (RFC 8709 section 6, RFC 8332 section 3, RFC 5656 section 3.1.2). */
	sign(data: Buffer): Buffer;
}

/** Return the key for use in SSH. Throws `key_unusable` for a kind that SSH does not have. */
export function sshKeyOf(name: string, key: KeyObject): SshKey {
	const jwk = key.export({ format: "jwk" });
	const part = (text: string | undefined): Buffer => Buffer.from(text ?? "", "base64url");
	if (jwk.kty === "OKP" && jwk.crv === "Ed25519") {
		const type = "ssh-ed25519";
		return { type, blob: Buffer.concat([string(type), string(part(jwk.x))]), sign: (data) => Buffer.concat([string(type), string(sign(null, data, key))]) };
	}
	if (jwk.kty === "RSA") {
		const blob = Buffer.concat([string("ssh-rsa"), mpint(part(jwk.e)), mpint(part(jwk.n))]);
		return { type: "ssh-rsa", blob, sign: (data) => Buffer.concat([string("rsa-sha2-512"), string(sign("sha512", data, key))]) };
	}
	const curve = CURVES.find((each) => jwk.kty === "EC" && each.jwk === jwk.crv);
	if (curve === undefined) throw keyUnusable(`${name} is not a key of Ed25519, ECDSA or RSA`);
	const type = `ecdsa-sha2-${curve.ssh}`;
	const point = Buffer.concat([Buffer.of(4), part(jwk.x), part(jwk.y)]);
	return {
		type,
		blob: Buffer.concat([string(type), string(curve.ssh), string(point)]),
		sign: (data) => {
			const pair = sign(curve.hash, data, { key, dsaEncoding: "ieee-p1363" });
			const numbers = Buffer.concat([mpint(pair.subarray(0, curve.bytes)), mpint(pair.subarray(curve.bytes))]);
			return Buffer.concat([string(type), string(numbers)]);
		},
	};
}

/** A public key line: `ssh-ed25519 AAAA… comment`. */
export interface PublicLine {
	type: string;
	blob: Buffer;
}

/** Parse a public key line. Throws `key_unusable`. */
export function parsePublicLine(name: string, text: string): PublicLine {
	const [type = "", encoded = ""] = text.trim().split(/\s+/);
	const blob = Buffer.from(encoded, "base64");
	try {
		if (type !== "" && new SshReader(blob).text() === type) return { type, blob };
	} catch {
		// Too short for a key: refused below.
	}
	throw keyUnusable(`${name} contains no private key, and no public key line such as 'ssh-ed25519 AAAA…'`);
}
