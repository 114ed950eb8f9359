/** The WebSocket client: frames of RFC 6455, and servers that break its rules. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer, type AddressInfo, type Socket as TcpSocket } from "node:net";
import test, { type TestContext } from "node:test";

import { openSocket } from "../dist/socket-node.js";
import type { Socket } from "../dist/socket.js";
import { frame, FrameReader, Opcode, ProtocolError, type Message } from "../dist/websocket-frames.js";
import { eventually } from "./support.js";

/** Return a frame as a server sends it: not masked. */
function serverFrame(first: number, payload: Buffer | string): Buffer {
	const content = Buffer.from(payload);
	if (content.length < 126) return Buffer.concat([Buffer.of(first, content.length), content]);
	const head = Buffer.alloc(content.length < 65_536 ? 4 : 10);
	head[0] = first;
	head[1] = content.length < 65_536 ? 126 : 127;
	if (content.length < 65_536) head.writeUInt16BE(content.length, 2);
	else head.writeBigUInt64BE(BigInt(content.length), 2);
	return Buffer.concat([head, content]);
}

function fed(chunks: Buffer[]): [number, string][] {
	const reader = new FrameReader();
	return chunks.flatMap((chunk) => [...reader.feed(chunk)].map(({ opcode, payload }: Message): [number, string] => [opcode, payload.toString()]));
}

test("messages are the same however their bytes are divided", () => {
	const long = "é".repeat(40_000);
	const bytes = Buffer.concat([
		serverFrame(0x81, "whole"),
		serverFrame(0x01, Buffer.from("café").subarray(0, 4)), // ends inside a character
		serverFrame(0x89, "ping"), // between fragments
		serverFrame(0x00, Buffer.from("café").subarray(4)),
		serverFrame(0x80, "!"),
		serverFrame(0x81, ""),
		serverFrame(0x81, "x".repeat(200)),
		serverFrame(0x81, long),
		serverFrame(0x88, Buffer.of(3, 232)),
	]);
	const expected = fed([bytes]);
	assert.deepEqual(expected.map(([opcode, text]) => [opcode, text.length > 300 ? text.length : text]).slice(0, 5), [
		[1, "whole"],
		[9, "ping"],
		[1, "café!"],
		[1, ""],
		[1, "x".repeat(200)],
	]);
	assert.equal(expected[5]?.[1], long);
	for (let cut = 1; cut < 300; cut += 1) assert.deepEqual(fed([bytes.subarray(0, cut), bytes.subarray(cut)]), expected);
	for (const size of [1, 7, 1000]) {
		const start = bytes.length - 400;
		const chunks = [bytes.subarray(0, start)];
		for (let at = start; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size));
		assert.deepEqual(fed(chunks), expected);
	}
});

test("a frame of the client is masked, with its length in the shortest form", () => {
	for (const size of [0, 1, 125, 126, 65_535, 65_536]) {
		const payload = Buffer.alloc(size, "é");
		const bytes = frame(Opcode.Text, payload);
		const start = size < 126 ? 2 : size < 65_536 ? 4 : 10;
		assert.equal(bytes.length, start + 4 + size);
		assert.equal(bytes[0], 0x81);
		assert.equal(bytes[1], 0x80 | (size < 126 ? size : size < 65_536 ? 126 : 127));
		const mask = bytes.subarray(start, start + 4);
		assert.ok(bytes.subarray(start + 4).every((byte, at) => (byte ^ (mask[at % 4] ?? 0)) === payload[at]));
	}
});

test("a violation of the protocol has its close code", () => {
	const violations: [string, number, Buffer[]][] = [
		["reserved bits", 1002, [serverFrame(0xc1, "a")]],
		["unknown opcode", 1002, [serverFrame(0x83, "a")]],
		["masked", 1002, [frame(Opcode.Text, Buffer.from("a"))]],
		["fragmented ping", 1002, [serverFrame(0x09, "a")]],
		["long ping", 1002, [serverFrame(0x89, "a".repeat(126))]],
		["continuation of nothing", 1002, [serverFrame(0x80, "a")]],
		["text inside a message", 1002, [serverFrame(0x01, "a"), serverFrame(0x81, "b")]],
		["binary", 1003, [serverFrame(0x82, "a")]],
		["invalid UTF-8", 1007, [serverFrame(0x81, Buffer.of(0xff))]],
		["long message", 1009, [serverFrame(0x81, "a".repeat(1024 * 1024 + 1))]],
		["long fragments", 1009, [serverFrame(0x01, "a".repeat(1024 * 1024)), serverFrame(0x80, "b")]],
	];
	for (const [name, closeCode, chunks] of violations) {
		assert.throws(() => fed(chunks), (error) => error instanceof ProtocolError && error.closeCode === closeCode, name);
	}
	// A length that no message may have is refused from its header alone.
	const huge = Buffer.alloc(10, 0xff);
	huge[0] = 0x81;
	huge[1] = 127;
	assert.throws(() => fed([huge]), (error) => error instanceof ProtocolError && error.closeCode === 1009);
});

/** A TCP server that answers the upgrade with these header lines, and its connections. */
async function server(t: TestContext, answer: (key: string) => string[]): Promise<{ url: string; peers: TcpSocket[]; received: Buffer[] }> {
	const peers: TcpSocket[] = [];
	const received: Buffer[] = [];
	const listener = createServer((peer) => {
		peers.push(peer);
		peer.on("error", () => {});
		peer.once("data", (request: Buffer) => {
			const key = /Sec-WebSocket-Key: (.*)\r\n/i.exec(request.toString())?.[1] ?? "";
			peer.on("data", (bytes: Buffer) => received.push(bytes));
			peer.write([...answer(key), "", ""].join("\r\n"));
		});
	});
	await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
	t.after(() => {
		for (const peer of peers) peer.destroy();
		listener.close();
	});
	return { url: `ws://127.0.0.1:${(listener.address() as AddressInfo).port}/v1/connect`, peers, received };
}

function accepting(key: string): string[] {
	const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
	return ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", `Sec-WebSocket-Accept: ${accept}`, "Sec-WebSocket-Protocol: artcafe.v1"];
}

function open(url: string, handlers: { texts: string[]; closes: [number, string][] }, timeoutMs = 30_000): Promise<Socket> {
	return openSocket(url, "artcafe.v1", timeoutMs, { onText: (text) => handlers.texts.push(text), onClose: (...close) => handlers.closes.push(close) });
}

test("an answer that is no WebSocket of this protocol is refused", async (t) => {
	const answers: [RegExp, (key: string) => string[]][] = [
		[/HTTP 404/, () => ["HTTP/1.1 404 Not Found", "Content-Length: 0"]],
		[/not one of a WebSocket/, () => accepting("another key")],
		[/does not speak artcafe.v1/, (key) => accepting(key).slice(0, 4)],
		[/extensions/, (key) => [...accepting(key), "Sec-WebSocket-Extensions: permessage-deflate"]],
	];
	for (const [message, answer] of answers) {
		const { url } = await server(t, answer);
		await assert.rejects(open(url, { texts: [], closes: [] }), { code: "invalid", message });
	}
	for (const status of ["429 Too Many Requests", "503 Service Unavailable"]) {
		const { url } = await server(t, () => [`HTTP/1.1 ${status}`, "Content-Length: 0"]);
		await assert.rejects(open(url, { texts: [], closes: [] }), { code: "unavailable", isTemporary: true });
	}
});

test("a server that does not answer the upgrade is given up", async (t) => {
	const { url } = await server(t, () => ["HTTP/1.1 101 Switching Protocols"].slice(1));
	await assert.rejects(open(url, { texts: [], closes: [] }, 200), { code: "unavailable", message: /timeout/ });
});

test("pings are answered, and messages in the packet of the upgrade are read", async (t) => {
	const found = { texts: [] as string[], closes: [] as [number, string][] };
	const { url, peers, received } = await server(t, (key) => accepting(key));
	const socket = await open(url, found);
	peers[0]?.write(Buffer.concat([serverFrame(0x81, "hello"), serverFrame(0x89, "are you there")]));
	await eventually(() => found.texts.length === 1 && received.length > 0);
	const pong = Buffer.concat(received);
	assert.deepEqual([pong[0], pong.length], [0x8a, 2 + 4 + "are you there".length]);
	peers[0]?.write(serverFrame(0x88, Buffer.concat([Buffer.of(0x11, 0x94), Buffer.from("go away")])));
	await eventually(() => found.closes.length === 1);
	assert.deepEqual(found.closes, [[4500, "go away"]]);
	socket.send("ignored");
});

test("a violation is answered with its close frame, and silence ends the connection", async (t) => {
	const found = { texts: [] as string[], closes: [] as [number, string][] };
	const { url, peers, received } = await server(t, (key) => accepting(key));
	await open(url, found);
	peers[0]?.write(serverFrame(0x82, "binary"));
	await eventually(() => found.closes.length === 1);
	assert.equal(found.closes[0]?.[0], 1003);
	await eventually(() => Buffer.concat(received)[0] === 0x88);

	const silent = { texts: [] as string[], closes: [] as [number, string][] };
	const socket = await open(url, silent);
	socket.watch(100);
	await eventually(() => silent.closes.length === 1);
	assert.deepEqual(silent.closes, [[1006, "nothing was received since the last ping"]]);
});

test("a paused socket reads nothing until it is resumed, and is not taken for silent", async (t) => {
	const found = { texts: [] as string[], closes: [] as [number, string][] };
	const { url, peers } = await server(t, (key) => accepting(key));
	const socket = await open(url, found);
	socket.watch(200);
	socket.pause();
	peers[0]?.write(serverFrame(0x81, "later"));
	await new Promise((resolve) => setTimeout(resolve, 500));
	assert.deepEqual(found, { texts: [], closes: [] });
	socket.resume();
	await eventually(() => found.texts.length === 1);
	assert.deepEqual(found.texts, ["later"]);
	await eventually(() => found.closes.length === 1);
	assert.deepEqual(found.closes, [[1006, "nothing was received since the last ping"]]);
});
