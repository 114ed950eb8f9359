/** Reconnecting and resuming, through a relay that breaks connections between an agent and a real server. */

import assert from "node:assert/strict";
import test from "node:test";

import { lostByClose, shouldReconnect } from "../dist/close-codes.js";
import { ArtcafeError } from "../dist/errors.js";
import { CLOSE_ERRORS } from "../dist/generated/frames.js";
import { Agent, type Message, type StateEvent } from "artcafe";
import { dataOf, eventually, Relay, take, Tenant } from "./support.js";

test("after a broken connection no message is missed or repeated, and unsent acks are sent", async (t) => {
	const tenant = await Tenant.create(t);
	const relay = await Relay.start(t);
	const events: string[] = [];
	const writer = await tenant.agent("writer");
	await tenant.channel("news");
	const signer = await tenant.signer("reader");
	const reader = await tenant.agent("reader", { signer, url: relay.url, onState: ({ kind }) => events.push(kind) });
	const messages = reader.messages("news");
	const first = messages.next();
	await eventually(async () => (await tenant.client.listAgentSubscriptions(tenant.id, "reader")).items.length === 1);
	for (const at of [1, 2]) await writer.publish("news", at);
	const one = (await first).value as Message;
	const [two] = (await take(messages, 1)) as [Message];
	relay.isDeaf = true;
	relay.cut();
	relay.isDown = true;
	one.ack();
	two.ack();
	await writer.publish("news", 3);
	relay.isDeaf = false;
	relay.isDown = false;
	const [three] = (await take(messages, 1)) as [Message];
	assert.deepEqual(dataOf([one, two, three]), [1, 2, 3]);
	await eventually(() => events.length === 3);
	assert.deepEqual(events, ["connected", "lost", "connected"]);
	three.ack();
	await reader.close();
	await writer.publish("news", 4);
	const next = await tenant.agent("reader", { signer });
	assert.deepEqual(dataOf(await take(next.messages(), 1)), [4]);
});

test("a delivery from a chosen start continues at its place after a broken connection", async (t) => {
	const tenant = await Tenant.create(t);
	const relay = await Relay.start(t);
	const writer = await tenant.agent("writer");
	await tenant.channel("news");
	for (const at of [1, 2, 3]) await writer.publish("news", at);
	const reader = await tenant.agent("reader", { url: relay.url });
	const messages = reader.messages("news", { start: "first" });
	assert.deepEqual(dataOf(await take(messages, 2)), [1, 2]);
	relay.cut();
	await writer.publish("news", 4);
	assert.deepEqual(dataOf(await take(messages, 2)), [3, 4]);
});

test("unanswered publishes are sent again in order, and each is stored once", async (t) => {
	const tenant = await Tenant.create(t);
	const relay = await Relay.start(t);
	const channel = await tenant.channel("news");
	const agent = await tenant.agent("writer", { url: relay.url });
	relay.isDeaf = true; // The server gets the publishes, and the agent no replies.
	const publishes = Array.from({ length: 50 }, (_, at) => agent.publish("news", at));
	const stored = async (): Promise<unknown[]> => ((await tenant.client.readHistory(tenant.id, channel, { after: "0", limit: 200 })).items as { data: unknown }[]).map(({ data }) => data);
	await eventually(async () => (await stored()).length === 50);
	relay.cut();
	relay.isDeaf = false;
	const receipts = await Promise.all(publishes);
	assert.ok(receipts.every(({ isDuplicate }) => isDuplicate));
	assert.deepEqual(await stored(), Array.from({ length: 50 }, (_, at) => at));
});

test("a publish whose outcome is unknown says so after its time", async (t) => {
	const tenant = await Tenant.create(t);
	const relay = await Relay.start(t);
	const agent = await tenant.agent("writer", { url: relay.url });
	relay.isDeaf = true;
	await assert.rejects(agent.publish("@writer", 1, { timeoutMs: 300 }), { code: "outcome_unknown", isTemporary: true });
	relay.isDown = true;
	relay.cut();
	await eventually(() => agent.state === "lost");
	await assert.rejects(agent.publish("@writer", 2, { timeoutMs: 300 }), { code: "unavailable", isTemporary: true });
});

test("a request is not repeated after a broken connection", async (t) => {
	const tenant = await Tenant.create(t);
	const relay = await Relay.start(t);
	const worker = await tenant.agent("worker");
	let asked = 0;
	let isAborted = false;
	await worker.onRequest(async ({ signal }) => {
		asked += 1;
		await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
		isAborted = true;
	});
	const asker = await tenant.agent("asker", { url: relay.url });
	const lost = assert.rejects(asker.ask("worker", 1), { code: "request_lost" });
	await eventually(() => asked === 1);
	relay.cut();
	await lost;
	await eventually(() => isAborted);
	assert.equal(asked, 1);
});

test("messages of a queue that a lost connection held are delivered again, and their old objects do nothing", async (t) => {
	const tenant = await Tenant.create(t);
	const relay = await Relay.start(t);
	await tenant.channel("tasks", { type: "queue" });
	const worker = await tenant.agent("worker", { url: relay.url });
	await worker.publish("tasks", "a");
	const messages = worker.messages("tasks");
	const [first] = (await take(messages, 1)) as [Message];
	relay.cut();
	const [second] = (await take(messages, 1)) as [Message];
	assert.deepEqual([second.data, second.messageId], ["a", first.messageId]);
	first.ack();
	await assert.rejects(first.extend(), { code: "not_held" });
	await first.nak();
	await second.extend();
	second.ack();
});

test("a close code from 4000 to 4499 leads to a new connection, and one from 4500 ends the agent", async (t) => {
	const tenant = await Tenant.create(t);
	const relay = await Relay.start(t);
	const events: StateEvent[] = [];
	const agent = await tenant.agent("scout", { url: relay.url, onState: (event) => events.push(event) });
	for (const [number, code] of [4000, 4001, 4242].entries()) {
		relay.close(code);
		await eventually(() => events.filter(({ kind }) => kind === "connected").length === number + 2);
	}
	relay.close(4504);
	await eventually(() => agent.state === "failed");
	assert.equal(relay.accepted, 4);
	await assert.rejects(agent.publish("@scout", 1), { code: "connection_limit" });
});

test("an agent that is still connecting can be closed, and started again", async (t) => {
	const tenant = await Tenant.create(t);
	const relay = await Relay.start(t);
	const signer = await tenant.signer("scout");
	const agent = new Agent({ url: relay.url, tenant: tenant.id, agent: "scout", signer, log: () => {} });
	t.after(() => agent.close());
	relay.isDeaf = true; // The answer to the upgrade does not arrive.
	const starting = assert.rejects(agent.start(), /not open/);
	await eventually(() => relay.accepted === 1);
	await agent.close();
	await starting;
	assert.equal(agent.state, "closed");
	relay.isDeaf = false;
	await agent.start();
	await assert.rejects(agent.start(), /started already/);
	assert.equal(agent.state, "connected");
});

test("every close code of the server has an error and a direction", () => {
	for (const [code, names] of CLOSE_ERRORS) {
		const lost = lostByClose(code, "", undefined);
		assert.ok(names.includes(lost.error.code), `${code}: ${lost.error.code}`);
		assert.equal(lost.shouldReconnect, code < 4500);
		const pushed = new ArtcafeError(names.at(-1) ?? "", "pushed before the close");
		assert.equal(lostByClose(code, "", pushed).error, pushed);
	}
	for (const code of [1002, 1003, 1007, 1009, 1010, 4999]) assert.ok(!shouldReconnect(code));
	for (const code of [1000, 1001, 1006, 1011, 3000, 4499]) assert.ok(shouldReconnect(code));
});
