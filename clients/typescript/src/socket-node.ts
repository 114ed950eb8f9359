/**
 * A WebSocket client (RFC 6455) on node:http and node:https.
 *
 * Node.js 20 has no global WebSocket without a flag, and undici, which has one, cannot be imported from Node.js itself. The
 * global one of Node.js 22 can neither stop reading nor show pings; this one does both.
 */

import { createHash, randomBytes } from "node:crypto";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import type { Duplex } from "node:stream";

import { ArtcafeError, invalid, unavailable } from "./errors.js";
import { FrameReader, frame, Opcode, ProtocolError } from "./websocket-frames.js";
import type { Socket, SocketHandlers } from "./socket.js";

export const canPause = true;

/** RFC 6455, section 1.3. */
const ACCEPT_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/** How long to wait for the peer's close frame. */
const CLOSE_MS = 2_000;

/** Open a connection. Rejects with `unavailable` if the server cannot be reached, and `invalid` if it is no gateway. */
export function openSocket(url: string, protocol: string, timeoutMs: number, handlers: SocketHandlers): Promise<Socket> {
	return new Promise((resolve, reject) => {
		const key = randomBytes(16).toString("base64");
		const request = url.startsWith("wss:") ? httpsRequest : httpRequest;
		const opening = request(url.replace(/^ws/, "http"), {
			agent: false,
			headers: {
				Connection: "Upgrade",
				Upgrade: "websocket",
				"Sec-WebSocket-Version": "13",
				"Sec-WebSocket-Key": key,
				"Sec-WebSocket-Protocol": protocol,
			},
		});
		const timer = setTimeout(() => opening.destroy(new Error("timeout")), timeoutMs);
		opening.on("close", () => clearTimeout(timer));
		opening.on("error", (error) => reject(failure(url, error)));
		opening.on("response", (response) => {
			response.resume();
			reject(refusal(url, response.statusCode ?? 0));
		});
		opening.on("upgrade", (response, stream, head) => {
			clearTimeout(timer);
			const problem = upgradeProblem(response, key, protocol);
			if (problem !== undefined) {
				stream.destroy();
				reject(invalid("url", `${url} is not an ArtCafe gateway: ${problem}`));
				return;
			}
			resolve(new NodeSocket(stream, head, handlers));
		});
		opening.end();
	});
}

function upgradeProblem(response: IncomingMessage, key: string, protocol: string): string | undefined {
	const accept = createHash("sha1").update(key + ACCEPT_GUID).digest("base64");
	if (response.headers["sec-websocket-accept"] !== accept) return "its answer to the upgrade is not one of a WebSocket";
	if (response.headers["sec-websocket-protocol"] !== protocol) return `it does not speak ${protocol}`;
	if (response.headers["sec-websocket-extensions"] !== undefined) return "it uses extensions that were not offered";
	return undefined;
}

function refusal(url: string, status: number): ArtcafeError {
	if (status === 429 || status >= 500) return unavailable(`${url} (it answered HTTP ${status})`);
	return invalid("url", `${url} is not an ArtCafe gateway: it answered HTTP ${status}`);
}

function failure(url: string, error: NodeJS.ErrnoException): ArtcafeError {
	const code = error.code ?? error.message;
	if (/CERT|SSL|TLS|SELF_SIGNED/.test(code)) {
		const hint = "; if an authority of your own signed the certificate, name its file in NODE_EXTRA_CA_CERTS";
		return invalid("url", `no TLS with ${url}: ${error.message}${code.includes("CERT") ? hint : ""}`);
	}
	return unavailable(`${url} (${code})`, error);
}

class NodeSocket implements Socket {
	readonly #stream: Duplex;
	readonly #handlers: SocketHandlers;
	readonly #reader = new FrameReader();
	#isClosing = false;
	#isOver = false;
	#isPaused = false;
	#closing: NodeJS.Timeout | undefined;
	#silence: NodeJS.Timeout | undefined;
	#silenceMs: number | undefined;

	constructor(stream: Duplex, head: Buffer, handlers: SocketHandlers) {
		this.#stream = stream;
		this.#handlers = handlers;
		if ("setNoDelay" in stream && typeof stream.setNoDelay === "function") stream.setNoDelay(true);
		stream.on("error", () => this.#end(1006, ""));
		stream.on("close", () => this.#end(1006, ""));
		stream.on("end", () => this.#end(1006, ""));
		// The caller gets the socket before its first message.
		setImmediate(() => {
			this.#read(head);
			stream.on("data", (chunk: Buffer) => this.#read(chunk));
		});
	}

	send(text: string): void {
		if (!this.#isClosing && !this.#isOver) this.#stream.write(frame(Opcode.Text, Buffer.from(text)));
	}

	close(code: number, reason: string): void {
		if (this.#isClosing || this.#isOver) return;
		this.#isClosing = true;
		this.#stream.write(frame(Opcode.Close, closePayload(code, reason)));
		this.resume(); // The peer's close frame must be read.
		this.#closing = setTimeout(() => this.#end(code, reason), CLOSE_MS);
	}

	pause(): void {
		if (this.#isPaused || this.#isClosing) return;
		this.#isPaused = true;
		this.#stream.pause();
		clearTimeout(this.#silence);
	}

	resume(): void {
		if (!this.#isPaused) return;
		this.#isPaused = false;
		if (this.#silenceMs !== undefined) this.watch(this.#silenceMs); // A cleared timer cannot be refreshed.
		this.#stream.resume();
	}

	watch(silenceMs: number): void {
		this.#silenceMs = silenceMs;
		clearTimeout(this.#silence);
		this.#silence = setTimeout(() => this.#end(1006, "nothing was received since the last ping"), silenceMs);
	}

	#read(chunk: Buffer): void {
		if (this.#isOver) return;
		if (!this.#isPaused) this.#silence?.refresh();
		try {
			for (const { opcode, payload } of this.#reader.feed(chunk)) {
				if (opcode === Opcode.Text) {
					if (!this.#isClosing) this.#handlers.onText(payload.toString());
				} else if (opcode === Opcode.Ping) this.#stream.write(frame(Opcode.Pong, payload));
				else if (opcode === Opcode.Close) this.#onClose(payload);
				if (this.#isOver) return;
			}
		} catch (error) {
			if (!(error instanceof ProtocolError)) throw error;
			this.#stream.write(frame(Opcode.Close, closePayload(error.closeCode, error.message)));
			this.#end(error.closeCode, error.message);
		}
	}

	#onClose(payload: Buffer): void {
		const code = payload.length >= 2 ? payload.readUInt16BE(0) : 1006;
		if (!this.#isClosing) this.#stream.write(frame(Opcode.Close, payload.subarray(0, 2)));
		this.#end(code, payload.subarray(2).toString());
	}

	#end(code: number, reason: string): void {
		if (this.#isOver) return;
		this.#isOver = true;
		clearTimeout(this.#closing);
		clearTimeout(this.#silence);
		this.#stream.end();
		this.#stream.destroy();
		this.#handlers.onClose(code, reason);
	}
}

function closePayload(code: number, reason: string): Buffer {
	const head = Buffer.alloc(2);
	head.writeUInt16BE(code);
	return Buffer.concat([head, Buffer.from(reason).subarray(0, 123)]);
}
