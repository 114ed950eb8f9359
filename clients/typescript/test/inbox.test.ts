/** The inbox and the acknowledged runs, without I/O. */

import assert from "node:assert/strict";
import test from "node:test";

import { Acked } from "../dist/acked.js";
import type { Message as Pushed } from "../dist/generated/frames.js";
import { Inbox } from "../dist/inbox.js";
import { Gap, Message } from "artcafe";

function pushed(seq: number | null, more: Partial<Pushed> = {}): Pushed {
	return { channel: "chn_1", seq, prev: null, message_id: `msg_${seq}`, from: "agt_1", time: "2026-11-28T12:00:00Z", data: seq, headers: {}, ...more };
}

function taken(inbox: Inbox): unknown[] {
	const found: unknown[] = [];
	for (let item = inbox.take([]); item !== undefined; item = inbox.take([])) found.push(item instanceof Message ? item.data : [item.first, item.last, item.reason]);
	return found;
}

function takeMessage(inbox: Inbox): Message {
	const item = inbox.take([]);
	assert.ok(item instanceof Message);
	return item;
}

test("the cursor is the end of the acknowledged messages, in whatever order they are acknowledged", () => {
	// All orders of five messages with skipped numbers, against a plain set.
	const seqs = [3, 4, 8, 9, 15];
	const orders = (left: number[]): number[][] => (left.length === 0 ? [[]] : left.flatMap((each) => orders(left.filter((other) => other !== each)).map((rest) => [each, ...rest])));
	for (const order of orders(seqs)) {
		const acked = new Acked();
		acked.reset(2);
		const done = new Set<number>();
		for (const seq of order) {
			acked.add(seqs[seqs.indexOf(seq) - 1] ?? 2, seq);
			done.add(seq);
			const open = seqs.findIndex((each) => !done.has(each));
			assert.equal(acked.through, open === -1 ? 15 : (seqs[open - 1] ?? 2), `${order} after ${seq}`);
		}
	}
});

test("a cumulative ack covers earlier messages and joins the runs behind it", () => {
	const acked = new Acked();
	acked.add(4, 5);
	acked.add(8, 9);
	acked.addAll(4);
	assert.equal(acked.through, 5);
	acked.addAll(8);
	assert.equal(acked.through, 9);
});

test("a message repeated by a new connection is not yielded again, and its ack is sent again", () => {
	const inbox = new Inbox(null);
	for (const seq of [1, 2]) inbox.onMessage(pushed(seq));
	takeMessage(inbox).ack();
	assert.deepEqual(inbox.acks([]), [{ channel: "chn_1", seq: 1 }]);
	inbox.onConnectionLost();
	inbox.onMessage(pushed(1));
	assert.deepEqual(inbox.acks([]), [{ channel: "chn_1", seq: 1 }]);
	inbox.onMessage(pushed(2));
	inbox.onMessage(pushed(3));
	assert.deepEqual(taken(inbox), [2, 3]);
});

test("an ack above what this connection was sent waits for the repeated message", () => {
	const inbox = new Inbox(null);
	for (const seq of [1, 2]) inbox.onMessage(pushed(seq));
	const [first, second] = [takeMessage(inbox), takeMessage(inbox)];
	inbox.onConnectionLost();
	first.ack();
	second.ack();
	assert.deepEqual(inbox.acks([]), []);
	assert.ok(inbox.hasUnsentAcks());
	inbox.onMessage(pushed(1));
	inbox.onMessage(pushed(2));
	assert.deepEqual(inbox.acks([]), [{ channel: "chn_1", seq: 2 }]);
	assert.ok(!inbox.hasUnsentAcks());
});

test("another message with a known sequence is of a restored log: it is yielded after a gap", () => {
	const inbox = new Inbox(null);
	for (const seq of [1, 2, 3]) inbox.onMessage(pushed(seq));
	taken(inbox);
	inbox.onConnectionLost();
	inbox.onMessage(pushed(2));
	inbox.onMessage(pushed(3, { message_id: "msg_other", data: "other" }));
	assert.deepEqual(taken(inbox), [[2, null, "epoch"], "other"]);
});

test("a gap is yielded once, in its place, however often the server repeats it", () => {
	const inbox = new Inbox(null);
	const gaps: Gap[] = [];
	inbox.onGap = (gap) => gaps.push(gap);
	inbox.onMessage(pushed(1));
	const gap = { channel: "chn_1", from: 2, to: 5, reason: "retention" };
	inbox.onGapFrame("chn_1", gap);
	inbox.onMessage(pushed(6));
	inbox.onConnectionLost();
	inbox.onGapFrame("chn_1", gap);
	assert.deepEqual(taken(inbox), [1, [2, 5, "retention"], 6]);
	assert.equal(gaps.length, 1);
	// A new log begins again at its first message.
	inbox.onGapFrame("chn_1", { channel: "chn_1", from: 7, to: null, reason: "epoch" }, "E2");
	inbox.onMessage(pushed(1, { message_id: "msg_new", data: "new" }));
	assert.deepEqual(taken(inbox), [[7, null, "epoch"], "new"]);
});

test("after a moved cursor buffered messages are dropped, and acks of earlier ones do nothing", () => {
	const inbox = new Inbox(null);
	for (const seq of [1, 2, 3]) inbox.onMessage(pushed(seq));
	const first = takeMessage(inbox);
	const moved = { channel: "chn_1", epoch: "E1", cursor: 1, moves: 1 };
	inbox.onMoved(moved);
	assert.deepEqual(taken(inbox), []);
	first.ack();
	assert.deepEqual(inbox.acks([]), []);
	for (const seq of [2, 3]) inbox.onMessage(pushed(seq));
	inbox.onMoved(moved);
	assert.deepEqual(taken(inbox), [2, 3]);
});

test("acks of a channel wait while its subscribe is in flight, whether it is named by handle or id", () => {
	const inbox = new Inbox(null);
	inbox.onMessage(pushed(1, { channel_handle: "news" }));
	takeMessage(inbox).ack();
	assert.deepEqual(inbox.acks(["news"]), []);
	assert.deepEqual(inbox.acks([]), [{ channel: "chn_1", seq: 1 }]);
});

test("a live channel is buffered up to a limit, and a full inbox says so", () => {
	const inbox = new Inbox(null);
	for (let count = 0; count < 1024; count += 1) inbox.onMessage(pushed(null, { data: count }));
	assert.ok(inbox.isFull);
	inbox.onMessage(pushed(null, { data: "dropped" }));
	assert.equal(taken(inbox).length, 1024);
	assert.ok(!inbox.isFull);
	assert.ok(!new Inbox(8).isFull);
});
