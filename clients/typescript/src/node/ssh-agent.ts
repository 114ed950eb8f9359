/** A signer by ssh-agent (draft-ietf-sshm-ssh-agent); the private key may be in a hardware token. */

import { connect, type Socket } from "node:net";

import { ArtcafeError, keyUnusable } from "../errors.js";
import type { Signer } from "../signer.js";
import { parsePublicLine, type PublicLine } from "./keys.js";
import { readKey } from "./read-key.js";
import { SshReader, string, uint32 } from "./ssh-bytes.js";
import { armor, signedData } from "./sshsig.js";

/** A security key waits for a touch, so a person needs this time. */
const TIMEOUT_MS = 60_000;
/** The maximum message size of OpenSSH's agent and its clients (AGENT_MAX_LEN). */
const MAX_REPLY_BYTES = 262_144;
const WINDOWS_PIPE = "\\\\.\\pipe\\openssh-ssh-agent";

const REQUEST_IDENTITIES = 11;
const IDENTITIES_ANSWER = 12;
const SIGN_REQUEST = 13;
const SIGN_RESPONSE = 14;
const RSA_SHA2_512 = 4;

export interface SshAgentSignerOptions {
	/** The socket of the ssh-agent; by default SSH_AUTH_SOCK, and on Windows OpenSSH's pipe. */
	socketPath?: string;
	timeoutMs?: number;
}

/**
 * Return a signer by ssh-agent. `publicKey` is a public key's line, or the path of its file. The ssh-agent is contacted only to
 * sign, so it may start or receive the key later. Rejects with `key_unusable`.
 */
export async function sshAgentSigner(publicKey: string, { socketPath, timeoutMs = TIMEOUT_MS }: SshAgentSignerOptions = {}): Promise<Signer> {
	const isLine = /\sAAAA/.test(publicKey);
	const key = parsePublicLine(isLine ? "the key" : publicKey, isLine ? publicKey : await readKey(publicKey));
	const path = socketPath ?? process.env["SSH_AUTH_SOCK"] ?? (process.platform === "win32" ? WINDOWS_PIPE : undefined);
	if (!path) {
		throw keyUnusable(
			'ssh-agent must hold the private half of this key, but SSH_AUTH_SOCK is not set: start one with eval "$(ssh-agent)" and ssh-add the key, or name the private key file',
		);
	}
	return {
		publicKey: `${key.type} ${key.blob.toString("base64")}`,
		sign: async (challenge) => armor(key.blob, await signature(path, key, signedData(challenge), timeoutMs)),
	};
}

async function signature(path: string, key: PublicLine, data: Buffer, timeoutMs: number): Promise<Buffer> {
	const socket = connect(path);
	try {
		const dialog = new AgentDialog(socket, timeoutMs);
		await requireKey(dialog, key);
		const flags = uint32(key.type === "ssh-rsa" ? RSA_SHA2_512 : 0);
		const answer = await dialog.request(SIGN_REQUEST, Buffer.concat([string(key.blob), string(data), flags]));
		if (answer.kind !== SIGN_RESPONSE) throw keyUnusable("ssh-agent refused to sign: the hardware token is missing, or the user declined");
		const found = answer.content.string();
		if (new SshReader(found).text() === "ssh-rsa") throw keyUnusable("this ssh-agent is too old: it signs RSA with SHA-1, which is not secure");
		return found;
	} catch (error) {
		if (error instanceof ArtcafeError) throw error;
		throw keyUnusable(`no valid answer from ssh-agent at ${path}: ${error instanceof Error ? error.message : String(error)}`, error);
	} finally {
		socket.destroy();
	}
}

async function requireKey(dialog: AgentDialog, key: PublicLine): Promise<void> {
	const { kind, content } = await dialog.request(REQUEST_IDENTITIES, Buffer.alloc(0));
	if (kind !== IDENTITIES_ANSWER) throw keyUnusable("ssh-agent does not list its keys");
	for (let left = content.uint32(); left > 0; left -= 1) {
		const blob = content.string();
		content.string(); // the comment
		if (blob.equals(key.blob)) return;
	}
	throw keyUnusable(`ssh-agent does not hold this ${key.type} key: ssh-add it, or ssh-add -X if the agent is locked`);
}

/** Requests and their answers on one connection. */
class AgentDialog {
	readonly #socket: Socket;
	readonly #timeoutMs: number;

	constructor(socket: Socket, timeoutMs: number) {
		this.#socket = socket;
		this.#timeoutMs = timeoutMs;
	}

	request(kind: number, content: Buffer): Promise<{ kind: number; content: SshReader }> {
		const socket = this.#socket;
		return new Promise((resolve, reject) => {
			let bytes = Buffer.alloc(0);
			const onData = (chunk: Buffer): void => {
				bytes = Buffer.concat([bytes, chunk]);
				if (bytes.length < 5) return;
				const size = bytes.readUInt32BE();
				if (size > MAX_REPLY_BYTES) finish(() => reject(new RangeError("its answer is too long")));
				else if (bytes.length >= 4 + size) finish(() => resolve({ kind: bytes[4] ?? 0, content: new SshReader(bytes.subarray(5, 4 + size)) }));
			};
			const onEnd = (): void => finish(() => reject(new Error("it closed the connection")));
			const onError = (error: Error): void => finish(() => reject(error));
			const timer = setTimeout(
				() => finish(() => reject(keyUnusable(`ssh-agent did not sign within ${this.#timeoutMs / 1000} s; does a token wait for a touch?`))),
				this.#timeoutMs,
			);
			const finish = (settle: () => void): void => {
				clearTimeout(timer);
				socket.off("data", onData).off("end", onEnd).off("error", onError);
				settle();
			};
			socket.on("data", onData).on("end", onEnd).on("error", onError);
			socket.write(string(Buffer.concat([Buffer.of(kind), content])));
		});
	}
}
