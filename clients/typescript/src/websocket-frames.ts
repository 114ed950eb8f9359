/** Frames of RFC 6455, for a client, without I/O: bytes in, messages out. No extensions. */

import { randomFillSync } from "node:crypto";

import { MAX_MESSAGE_BYTES } from "./socket.js";

export const Opcode = { Continuation: 0, Text: 1, Binary: 2, Close: 8, Ping: 9, Pong: 10 } as const;

const MAX_CONTROL_BYTES = 125;

/** A violation of the protocol by the server, and the code to close with. */
export class ProtocolError extends Error {
	constructor(
		readonly closeCode: number,
		message: string,
	) {
		super(message);
	}
}

/** Return a masked frame with the whole payload. */
export function frame(opcode: number, payload: Buffer): Buffer {
	const size = payload.length;
	const lengthBytes = size < 126 ? 0 : size < 65_536 ? 2 : 8;
	const start = 2 + lengthBytes + 4;
	const bytes = Buffer.allocUnsafe(start + size);
	bytes[0] = 0x80 | opcode;
	bytes[1] = 0x80 | (lengthBytes === 0 ? size : lengthBytes === 2 ? 126 : 127);
	if (lengthBytes === 2) bytes.writeUInt16BE(size, 2);
	else if (lengthBytes === 8) bytes.writeBigUInt64BE(BigInt(size), 2);
	randomFillSync(bytes, start - 4, 4);
	for (let at = 0; at < size; at += 1) bytes[start + at] = payload[at]! ^ bytes[start - 4 + (at & 3)]!;
	return bytes;
}

/** A whole message, or a control frame. */
export interface Message {
	opcode: number;
	payload: Buffer;
}

interface Header {
	isLast: boolean;
	opcode: number;
	start: number;
	size: number;
}

/** Joins bytes to messages. Throws `ProtocolError`; it must not be fed afterwards. */
export class FrameReader {
	#chunks: Buffer[] = [];
	#buffered = 0;
	/** The size that the buffered bytes must reach before a frame can be complete. */
	#needed = 2;
	#fragments: Buffer[] | undefined;
	#fragmentBytes = 0;
	readonly #decoder = new TextDecoder("utf-8", { fatal: true });

	/** Return the messages that these bytes complete. */
	*feed(chunk: Buffer): Generator<Message> {
		this.#chunks.push(chunk);
		this.#buffered += chunk.length;
		// Without joining the chunks for each one: a large message arrives in many.
		if (this.#buffered < this.#needed) return;
		let bytes = Buffer.concat(this.#chunks);
		for (;;) {
			const header = headerOf(bytes);
			this.#needed = header === undefined ? bytes.length + 1 : header.start + header.size;
			if (header === undefined || bytes.length < this.#needed) break;
			const payload = bytes.subarray(header.start, this.#needed);
			bytes = bytes.subarray(this.#needed);
			const message = this.#joined(header, payload);
			if (message !== undefined) yield message;
		}
		this.#chunks = [bytes];
		this.#buffered = bytes.length;
	}

	#joined({ isLast, opcode }: Header, payload: Buffer): Message | undefined {
		if (opcode >= Opcode.Close) return { opcode, payload };
		if (opcode === Opcode.Binary) throw new ProtocolError(1003, "binary message");
		if ((opcode === Opcode.Continuation) === (this.#fragments === undefined)) throw new ProtocolError(1002, "fragments out of order");
		this.#fragments ??= [];
		this.#fragments.push(payload);
		this.#fragmentBytes += payload.length;
		if (this.#fragmentBytes > MAX_MESSAGE_BYTES) throw new ProtocolError(1009, "message too long");
		if (!isLast) return undefined;
		const whole = this.#fragments.length === 1 ? payload : Buffer.concat(this.#fragments);
		this.#fragments = undefined;
		this.#fragmentBytes = 0;
		try {
			this.#decoder.decode(whole);
		} catch {
			throw new ProtocolError(1007, "invalid UTF-8");
		}
		return { opcode: Opcode.Text, payload: whole };
	}
}

/** Return the header at the beginning of `bytes`, or undefined if it is incomplete. */
function headerOf(bytes: Buffer): Header | undefined {
	if (bytes.length < 2) return undefined;
	const first = bytes[0]!;
	const second = bytes[1]!;
	const opcode = first & 0x0f;
	const isLast = (first & 0x80) !== 0;
	if ((first & 0x70) !== 0) throw new ProtocolError(1002, "reserved bits");
	if (![0, 1, 2, 8, 9, 10].includes(opcode)) throw new ProtocolError(1002, `unknown opcode ${opcode}`);
	if ((second & 0x80) !== 0) throw new ProtocolError(1002, "masked by the server");
	const short = second & 0x7f;
	if (opcode >= Opcode.Close && (!isLast || short > MAX_CONTROL_BYTES)) throw new ProtocolError(1002, "invalid control frame");
	if (short < 126) return { isLast, opcode, start: 2, size: short };
	const start = short === 126 ? 4 : 10;
	if (bytes.length < start) return undefined;
	const size = short === 126 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
	if (size > MAX_MESSAGE_BYTES) throw new ProtocolError(1009, "message too long");
	return { isLast, opcode, start, size };
}
