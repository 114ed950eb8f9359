import assert from "node:assert/strict";
import { test } from "node:test";

import { jsonOf } from "../src/json.js";
import { belongsTo, searchFrom, searchOrder, threadRows } from "../src/messages/conversation.js";
import { parseDraft } from "../src/messages/draft.js";
import type { ChannelMessage } from "../src/messages/message.js";
import { parsePlace, queryFrom } from "../src/messages/seek.js";
import { MAX_ENTRIES, Timeline } from "../src/messages/timeline.js";

function message(seq: number | null, fields: Partial<ChannelMessage> = {}): ChannelMessage {
	return { channel: "chn_1", seq, message_id: `msg_${seq}`, from: "agt_1", time: "2026-11-29T10:00:00.000Z", headers: {}, data: null, ...fields };
}

function shown(timeline: Timeline): (number | string | null)[] {
	return timeline.entries.map((each) => (each.kind === "message" ? each.message.seq : each.kind === "missing" ? `${each.range.from}-${each.range.to}` : "notice"));
}

test("history and new messages are merged without a repeat", () => {
	const timeline = new Timeline();
	timeline.open([message(9), message(7), message(4)], { from: 1, to: 3, reason: "retention" });
	assert.deepEqual([7, 9, 12].map((seq) => timeline.add(message(seq))), [false, false, true]);
	assert.equal(timeline.add(message(12)), false);
	timeline.addGap({ from: 13, to: 15, reason: "expired" });
	timeline.addGap({ from: 13, to: 15, reason: "expired" });
	timeline.add(message(16));
	assert.deepEqual(shown(timeline), ["1-3", 4, 7, 9, 12, "13-15", 16]);
	timeline.prepend([message(4), message(2)], undefined);
	assert.deepEqual(shown(timeline), [2, "1-3", 4, 7, 9, 12, "13-15", 16]);
});

test("messages of another log are shown below a notice, also with sequences that were shown before", () => {
	const timeline = new Timeline();
	timeline.open([message(9)], undefined);
	timeline.renew();
	assert.equal(timeline.add(message(3)), true);
	assert.deepEqual(shown(timeline), [9, "notice", 3]);
});

test("messages of a live channel have no place, and are all shown", () => {
	const timeline = new Timeline();
	assert.deepEqual([timeline.add(message(null)), timeline.add(message(null))], [true, true]);
	assert.equal(timeline.first, null);
});

test("a timeline keeps a bounded number of entries, the newest ones", () => {
	const timeline = new Timeline();
	for (let seq = 1; seq <= MAX_ENTRIES + 1; seq += 1) timeline.add(message(seq));
	assert.equal(timeline.entries.length <= MAX_ENTRIES, true);
	assert.equal(shown(timeline).at(-1), MAX_ENTRIES + 1);
	assert.equal(new Set(timeline.entries.map((each) => each.key)).size, timeline.entries.length);
});

test("a place is typed as a sequence, a time, an age or a word", () => {
	const now = new Date("2026-11-29T12:00:00Z");
	const time = (text: string) => ({ kind: "time", time: text });
	const cases: [string, unknown][] = [
		["42", { kind: "seq", seq: 42 }],
		["#42", { kind: "seq", seq: 42 }],
		[" First ", { kind: "first" }],
		["last", { kind: "last" }],
		["15m", time("2026-11-29T11:45:00.000Z")],
		["2 h ago", time("2026-11-29T10:00:00.000Z")],
		["10:30", time("2026-11-29T10:30:00.000Z")],
		["2026-11-28", time("2026-11-28T00:00:00.000Z")],
		["2026-11-28 9:05:01.5", time("2026-11-28T09:05:01.500Z")],
		["2026-11-28T10:00:00+01:00", time("2026-11-28T09:00:00.000Z")],
		...["", "yesterday", "-1", "1.5", "25:00", "2026-02-31", "2026-13-01", "9007199254740993", "2026-11-28T10:61:00Z", "99999999d", "NaN"].map((each): [string, unknown] => [each, null]),
	];
	for (const [typed, place] of cases) assert.deepEqual(parsePlace(typed, now, true), place, typed);
	assert.deepEqual(parsePlace("10:30", now, false), time(new Date(now.getFullYear(), now.getMonth(), now.getDate(), 10, 30).toISOString()));
});

test("the history from a sequence begins with it", () => {
	assert.deepEqual(queryFrom({ kind: "seq", seq: 42 }), { after: "41" });
	assert.deepEqual(queryFrom({ kind: "seq", seq: 0 }), { after: "0" });
	assert.deepEqual(queryFrom({ kind: "last" }), {});
});

test("a conversation is a tree of answers, each after the message that it answers", () => {
	const at = (second: number) => `2026-11-29T10:00:0${second}.000Z`;
	const messages = [
		message(5, { message_id: "c", caused_by: "a", chain: "a", hops: 1, time: at(3) }),
		message(6, { message_id: "e", caused_by: "gone", chain: "a", hops: 3, time: at(5) }),
		message(2, { message_id: "b", caused_by: "a", chain: "a", hops: 1, time: at(2) }),
		message(4, { message_id: "d", caused_by: "b", chain: "a", hops: 2, time: at(4) }),
		message(1, { message_id: "a", time: at(1) }),
		message(1, { message_id: "a", time: at(1) }),
	];
	const rows = threadRows(messages).map((each) => [each.message.message_id, each.depth, each.isCauseMissing]);
	assert.deepEqual(rows, [["a", 0, false], ["b", 1, false], ["d", 2, false], ["c", 1, false], ["e", 3, true]]);
	assert.deepEqual(messages.map((each) => belongsTo(each, "a")), [true, true, true, true, true, true]);
	assert.equal(belongsTo(message(9), "a"), false);
});

test("a conversation of 20,000 answers one after another does not exhaust the stack", () => {
	const messages = Array.from({ length: 20_000 }, (_, index) => message(index, { message_id: `m${index}`, ...(index === 0 ? {} : { caused_by: `m${index - 1}` }) }));
	assert.equal(threadRows(messages).at(-1)?.depth, 19_999);
});

test("the search for a conversation begins at the time in its id", () => {
	assert.equal(searchFrom("msg_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"), "2024-11-22T03:44:29.959Z");
	assert.equal(searchFrom("agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"), null);
	assert.equal(searchFrom("msg_old"), null);
});

test("the channels that a message names are searched first", () => {
	const channels = ["a", "b", "c"].map((id) => ({ id, handle: `h-${id}` }));
	assert.deepEqual(searchOrder(channels, ["c", null, "h-b"]).map((each) => each.id), ["c", "b", "a"]);
});

test("a number that a browser would change is refused, outside of text", () => {
	const draft = { isJson: true, key: "", headers: "", replyTo: "" };
	const problem = (data: string) => parseDraft({ ...draft, data }).problems?.data ?? null;
	for (const data of ["9007199254740993", '{"id": -12345678901234567890}', '["\\"", 9007199254740993]']) assert.match(problem(data) ?? "", /would change/);
	for (const data of ["9007199254740992", '"9007199254740993"', "0.1000000000000000055", "1e21", '{"9007199254740993": "\\"9007199254740993"}']) assert.equal(problem(data), null, data);
});

test("characters that turn the direction of text are shown as escapes", () => {
	assert.equal(jsonOf({ a: "\u202eabc" }), '{"a":"\\u202eabc"}');
	assert.equal(jsonOf("\u05d0"), '"\u05d0"');
});
