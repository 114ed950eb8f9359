import assert from "node:assert/strict";
import { test } from "node:test";

import type { DigestedEntry, Subscription, UsageItem } from "../../clients/typescript/src/generated/rest.js";
import { canonicalText, ChainCheck, sha256 } from "../src/audit/digest-chain.js";
import { ratePerMinute, slowest } from "../src/channels/figures.js";
import { periodsOf, SPANS, stepsOf, totalOf, valuesOf } from "../src/usage/series.js";

test("the rate is known from the second reading on, and never negative", () => {
	const at = (second: number, messages: number | null, last_seq: number | null) => ({ at: second * 1000, figures: { first_seq: 1, last_seq, messages } });
	assert.equal(ratePerMinute(undefined, at(0, 5, 5)), null);
	assert.equal(ratePerMinute(at(0, 5, 5), at(30, 15, 40)), 20);
	assert.equal(ratePerMinute(at(0, 5, 40), at(30, 5, 40)), 0);
	assert.equal(ratePerMinute(at(0, 50, 40), at(30, 5, 90)), 0);
	assert.equal(ratePerMinute(at(0, null, null), at(30, 5, 90)), null);
});

test("the slowest subscriber has the largest known lag", () => {
	const subscriptions = [3, null, 0, 7].map((lag, index) => ({ agent_id: `agt_${index}`, lag }) as Subscription);
	assert.equal(slowest(subscriptions)?.agent_id, "agt_3");
	assert.equal(slowest(subscriptions.slice(1, 3)), null);
});

test("usage has a value for each hour or day of its span, and a hole where nothing was counted", () => {
	const now = new Date("2026-11-29T01:30:00Z");
	const [day, , month] = SPANS;
	assert.ok(day && month);
	assert.deepEqual(periodsOf(day, now), ["2026-11-28", "2026-11-29"]);
	assert.deepEqual(periodsOf(month, now), ["2026-10", "2026-11"]);
	const items = [
		{ name: "messages_stored", period: "2026-11-29T01", value: 4 },
		{ name: "messages_stored", period: "2026-11-29T00", value: 0 },
		{ name: "deliveries", period: "2026-11-28T23", value: 9 },
	] as UsageItem[];
	const values = valuesOf(items, "messages_stored", stepsOf(day, now));
	assert.deepEqual(values.slice(-3), [null, 0, 4]);
	assert.deepEqual([values.length, totalOf(values), totalOf([null])], [24, 4, null]);
});

async function entry(number: number, before: string, facts: Record<string, string> = {}): Promise<DigestedEntry> {
	const fields = { number, id: `aud_${number}`, time: "2026-11-29T01:30:00.000Z", action: "agent.create", actor: "usr:ä", outcome: "done" as const, target: null, facts, address: null, request_id: null, intent: null, before };
	return { ...fields, digest: await sha256(canonicalText({ ...fields, digest: "" })) };
}

test("the check of the audit finds an entry that is missing, changed, or does not follow", async () => {
	const first = await entry(1, "", { z: "1", a: "2" });
	const second = await entry(2, first.digest);
	const check = new ChainCheck();
	assert.equal(await check.add([first, second]), null);
	assert.deepEqual([check.checked, check.digest], [2, second.digest]);
	assert.match((await new ChainCheck().add([first, await entry(3, first.digest)]))?.problem ?? "", /missing/);
	assert.match((await new ChainCheck().add([first, await entry(2, "0")]))?.problem ?? "", /follow/);
	assert.match((await new ChainCheck().add([{ ...first, actor: "usr:b" }]))?.problem ?? "", /changed/);
});

test("the text that is digested has sorted keys and no spaces", async () => {
	assert.equal(
		canonicalText(await entry(1, "", { z: "1", a: "ä" })),
		'{"action":"agent.create","actor":"usr:ä","address":null,"before":"","facts":{"a":"ä","z":"1"},"id":"aud_1","intent":null,"number":1,"outcome":"done","request_id":null,"target":null,"time":"2026-11-29T01:30:00.000Z"}',
	);
});
