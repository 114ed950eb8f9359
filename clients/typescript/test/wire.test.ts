/** The session, driven by the transcripts that the Python client is tested with. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { ArtcafeError } from "../dist/errors.js";
import { CLIENT_RECEIVES, CLIENT_SENDS, ClientSession, SUBPROTOCOL, type CommandKind } from "../dist/wire-session.js";

interface Step {
	from: "client" | "server";
	kind: string;
	frame: string;
	client: string;
}

interface Vectors {
	subprotocol: string;
	client: { sends: Row[]; receives: Row[] };
	transcripts: { name: string; steps: Step[] }[];
	illegal_for_client: { state: string; path: { from: "client" | "server"; frame: string }[]; kind: string; frame: string; close: number }[];
}

interface Row {
	state: string;
	kind: string;
	next: string;
}

// Of the repository, whose root is two folders above this package, also from build/.
const VECTORS = new URL("../../../tests/wire/vectors/session.json", import.meta.url);
const vectors = JSON.parse(readFileSync(VECTORS, "utf8")) as Vectors;

/** Send a frame of the vectors; return the frame that the session made of its parts. */
function send(session: ClientSession, frame: string): string {
	const { id, ...rest } = JSON.parse(frame) as Record<string, unknown>;
	const [kind = "", body] = Object.entries(rest)[0] ?? [];
	return session.send(kind as CommandKind, JSON.stringify(body), (id as number | undefined) ?? null);
}

function rows(table: typeof CLIENT_SENDS): Row[] {
	const found = [...table].flatMap(([state, kinds]) => [...kinds].map(([kind, next]) => ({ state, kind, next })));
	return found.sort((a, b) => (a.state + "/" + a.kind < b.state + "/" + b.kind ? -1 : 1));
}

test("the tables of the session are those of the Python client", () => {
	assert.equal(SUBPROTOCOL, vectors.subprotocol);
	assert.deepEqual(rows(CLIENT_SENDS), vectors.client.sends);
	assert.deepEqual(rows(CLIENT_RECEIVES), vectors.client.receives);
});

for (const { name, steps } of vectors.transcripts) {
	test(`the session follows the transcript ${name}`, () => {
		const session = new ClientSession();
		for (const step of steps) {
			if (step.from === "client") assert.deepEqual(JSON.parse(send(session, step.frame)), JSON.parse(step.frame));
			else assert.equal(session.receive(step.frame).kind, step.kind === "unknown" ? null : step.kind);
			assert.equal(session.state, step.client);
		}
	});
}

test("a frame out of turn is refused, and the state is unchanged", () => {
	assert.ok(vectors.illegal_for_client.length > 0);
	for (const { state, path, kind, frame } of vectors.illegal_for_client) {
		const session = new ClientSession();
		for (const step of path) {
			if (step.from === "client") send(session, step.frame);
			else session.receive(step.frame);
		}
		assert.equal(session.state, state);
		assert.throws(() => session.receive(frame), { code: "bad_frame" }, `${kind} in the state ${state}`);
		assert.equal(session.state, state);
	}
});

test("a command out of turn is refused", () => {
	const session = new ClientSession();
	assert.throws(() => session.send("publish", "{}", 1), { code: "out_of_turn" });
	session.close();
	assert.throws(() => session.send("connect", "{}", 1), { code: "out_of_turn" });
});

test("a malformed frame is refused", () => {
	const malformed = [
		"",
		"{",
		"[]",
		"null",
		'{"id":"1","publish":{}}',
		'{"message":[]}',
		'{"message":{"channel":"c","seq":"1","message_id":"m","from":"a"}}',
		'{"message":{"channel":"c","seq":1,"from":"a"}}',
		'{"gap":{"channel":"c","reason":"retention"}}',
		'{"error":{"code":5,"message":"text"}}',
	];
	for (const frame of malformed) {
		const session = new ClientSession();
		session.send("connect", "{}", 1);
		session.receive('{"id":1,"connect":{"session_id":"s","ping_s":25,"limits":{}}}');
		assert.throws(() => session.receive(frame), (error) => error instanceof ArtcafeError && error.code === "bad_frame", frame);
		assert.equal(session.state, "connected");
	}
});
