/** A signer with a key file. */

import { stat } from "node:fs/promises";

import type { Signer } from "../signer.js";
import { parsePrivateKey, sshKeyOf } from "./keys.js";
import { readKey } from "./read-key.js";
import { sshAgentSigner } from "./ssh-agent.js";
import { armor, signedData } from "./sshsig.js";

export interface KeySignerOptions {
	/** Receives a warning if others on this machine can read the file; `console.warn` by default. */
	log?: (text: string) => void;
}

/**
 * Return a signer for a private key file without a passphrase, in OpenSSH's or PEM format; for a `.pub` file, one by the
 * ssh-agent that holds the private half. Rejects with `key_unusable`, and with `key_locked` for a key with a passphrase.
 */
export async function keySigner(path: string, { log = (text) => console.warn(`artcafe: ${text}`) }: KeySignerOptions = {}): Promise<Signer> {
	const text = await readKey(path);
	if (!text.includes("PRIVATE KEY-----")) return sshAgentSigner(path);
	await warnIfOpen(path, log);
	const key = sshKeyOf(path, parsePrivateKey(path, text));
	return {
		publicKey: `${key.type} ${key.blob.toString("base64")}`,
		sign: async (challenge) => armor(key.blob, key.sign(signedData(challenge))),
	};
}

/** Warn of a private key that other users of this machine can read. Files of other owners are skipped, as in ssh. */
async function warnIfOpen(path: string, log: (text: string) => void): Promise<void> {
	if (process.getuid === undefined) return;
	const { uid, mode } = await stat(path);
	if (uid !== process.getuid() || (mode & 0o077) === 0) return;
	log(`${path} is a private key that others on this machine can read (mode ${(mode & 0o777).toString(8)}): chmod 600 ${path}`);
}
