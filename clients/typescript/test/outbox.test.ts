/** The queue of commands, and the session that sends them, without I/O. */

import assert from "node:assert/strict";
import test from "node:test";

import { ArtcafeError } from "../dist/errors.js";
import { Outbox, type CommandOptions, type Outcome } from "../dist/outbox.js";
import type { CommandKind } from "../dist/wire-session.js";

const BUSY = new ArtcafeError("unavailable", "later", { isTemporary: true });

class Sender {
	readonly outbox = new Outbox(60_000);
	/** The outcomes by the name of the command. */
	readonly outcomes = new Map<string, Outcome>();

	add(name: string, kind: CommandKind = "publish", options: CommandOptions = {}): ReturnType<Outbox["add"]> {
		return this.outbox.add(kind, JSON.stringify(name), (outcome) => this.outcomes.set(name, outcome), options);
	}

	/** Return the names of the commands that are sent now, and their ids. */
	sent(now = 0): Map<string, number> {
		return new Map(this.outbox.due(now).map((command) => [JSON.parse(command.bodyText) as string, command.id ?? -1]));
	}

	errorOf(name: string): string | undefined {
		const outcome = this.outcomes.get(name);
		return outcome !== undefined && "error" in outcome ? (outcome.error as ArtcafeError).code : undefined;
	}
}

test("a temporary refusal holds back later commands of its kind only, and their order stays", () => {
	const sender = new Sender();
	sender.add("a");
	const a = sender.sent().get("a") ?? -1;
	sender.outbox.onError(a, BUSY, 0);
	sender.add("b");
	sender.add("status", "status");
	assert.deepEqual([...sender.sent(0).keys()], ["status"]);
	const waitMs = sender.outbox.waitMs(0) ?? 0;
	assert.ok(waitMs >= 0 && waitMs <= 100);
	assert.deepEqual([...sender.sent(101).keys()], ["a", "b"]);
	assert.equal(sender.outcomes.size, 0);
});

test("after a lost connection commands in flight are sent again before younger ones, except requests and replies", () => {
	const sender = new Sender();
	for (const name of ["a", "b"]) sender.add(name);
	sender.add("ask", "request");
	sender.add("answer", "reply");
	const ids = sender.sent();
	sender.outbox.onError(ids.get("a") ?? -1, BUSY, 0);
	sender.add("c");
	sender.outbox.onConnectionLost();
	assert.deepEqual([...sender.sent(1000).keys()], ["a", "b", "c"]);
	assert.deepEqual([sender.errorOf("ask"), sender.errorOf("answer")], ["request_lost", "outcome_unknown"]);
});

test("a refused repeat of a publish with an unknown outcome leaves it unknown", () => {
	const refused = new ArtcafeError("invalid", "expires_at has passed");
	const sender = new Sender();
	for (const name of ["refused", "lost"]) sender.add(name);
	sender.outbox.onError(sender.sent().get("refused") ?? -1, refused, 0);
	sender.outbox.onConnectionLost();
	sender.outbox.onError(sender.sent().get("lost") ?? -1, refused, 0);
	assert.deepEqual([sender.errorOf("refused"), sender.errorOf("lost")], ["invalid", "outcome_unknown"]);
});

test("a rate limit is waited for as long as allowed, and not beyond the caller's deadline", () => {
	const slow = (retryAfterMs: number): ArtcafeError => new ArtcafeError("too_fast", "slower", { isTemporary: true, retryAfterMs });
	const sender = new Sender();
	sender.add("long");
	sender.add("late", "status", { deadline: 500 });
	sender.add("asked", "request");
	const ids = sender.sent();
	sender.outbox.onError(ids.get("long") ?? -1, slow(60_001), 0);
	sender.outbox.onError(ids.get("late") ?? -1, slow(1000), 0);
	sender.outbox.onError(ids.get("asked") ?? -1, slow(1000), 0); // Nothing was sent to the agent, so a request is repeated too.
	assert.deepEqual([sender.errorOf("long"), sender.errorOf("late"), sender.errorOf("asked")], ["too_fast", "too_fast", undefined]);
	assert.deepEqual([...sender.sent(999).keys()], []);
	assert.deepEqual([...sender.sent(1101).keys()], ["asked"]);
});

test("a temporary error of a request is final, and a permanent error of any command", () => {
	const sender = new Sender();
	sender.add("ask", "request");
	sender.add("publish");
	const ids = sender.sent();
	sender.outbox.onError(ids.get("ask") ?? -1, new ArtcafeError("agent_away", "away", { isTemporary: true, wasDelivered: false }), 0);
	sender.outbox.onError(ids.get("publish") ?? -1, new ArtcafeError("forbidden", "no"), 0);
	assert.deepEqual([sender.errorOf("ask"), sender.errorOf("publish"), sender.outbox.size], ["agent_away", "forbidden", 0]);
});

test("256 commands and 256 requests are in flight at most, independently", () => {
	const sender = new Sender();
	for (let at = 0; at < 300; at += 1) {
		sender.add(`p${at}`);
		sender.add(`r${at}`, "request");
	}
	const ids = sender.sent();
	assert.equal(ids.size, 512);
	assert.equal(sender.sent().size, 0);
	sender.outbox.onReply(ids.get("p0") ?? -1, "publish", { seq: 1, message_id: "msg_1", duplicate: false });
	assert.deepEqual([...sender.sent().keys()], ["p256"]);
});

test("a cancelled request is cancelled at the server once, and one that was not sent is forgotten", () => {
	const sender = new Sender();
	const pending = sender.add("ask", "request");
	const id = sender.sent().get("ask") ?? -1;
	sender.outbox.cancel(pending);
	sender.outbox.cancel(pending);
	assert.deepEqual([sender.outbox.cancels(), sender.outbox.cancels()], [[id], []]);
	sender.outbox.cancel(sender.add("other", "request"));
	assert.deepEqual([sender.sent().size, sender.outbox.cancels(), sender.outbox.size], [0, [], 0]);
});

test("a reply of another kind than its command is refused, and one without a command is ignored", () => {
	const sender = new Sender();
	sender.add("a");
	const id = sender.sent().get("a") ?? -1;
	assert.throws(() => sender.outbox.onReply(id, "status", { status: null }), { code: "bad_frame" });
	sender.outbox.onReply(99, "status", { status: null });
});

test("at the end a command that was sent has an unknown outcome, and another one the reason", () => {
	const sender = new Sender();
	sender.add("sent");
	sender.sent();
	sender.add("waiting");
	sender.outbox.fail(new ArtcafeError("revoked", "revoked"));
	assert.deepEqual([sender.errorOf("sent"), sender.errorOf("waiting"), sender.outbox.size], ["outcome_unknown", "revoked", 0]);
});
