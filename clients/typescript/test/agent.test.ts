/** Agents against a real server: publish, receive, acknowledge, queues, requests, and refusals. */

import assert from "node:assert/strict";
import test from "node:test";

import { Agent, AgentError, agentToken, type Message, type StateEvent } from "artcafe";
import { keySigner } from "artcafe/node";
import { dataOf, eventually, folder, makeKey, take, Tenant, url } from "./support.js";

test("a message is received by its subscriber, once acknowledged never again", async (t) => {
	const tenant = await Tenant.create(t);
	const [writer, signer] = [await tenant.agent("writer"), await tenant.signer("reader")];
	await tenant.channel("news");
	const reader = await tenant.agent("reader", { signer });
	await reader.subscribe("news", { start: "first" });
	const receipt = await writer.publish("news", { hello: "wörld" }, { key: "k1", headers: { trace: "7f" }, replyTo: "@writer" });
	assert.equal(receipt.isDuplicate, false);
	assert.deepEqual(await writer.publish("news", { hello: "wörld" }, { key: "k1", headers: { trace: "7f" }, replyTo: "@writer" }), { ...receipt, isDuplicate: true });
	await writer.publish("news", [2]);

	const [first, second] = (await take(reader.messages(), 2)) as [Message, Message];
	assert.deepEqual(first.data, { hello: "wörld" });
	assert.deepEqual([first.channel, first.sender, first.seq, first.messageId], ["news", "writer", receipt.seq, receipt.messageId]);
	assert.deepEqual([first.headers, first.replyTo, first.deliveries, first.isDirect], [{ trace: "7f" }, `@${first.senderId}`, null, false]);
	assert.ok(first.time.getTime() <= second.time.getTime());
	// Out of order: the cursor moves only when the first one is acknowledged too.
	second.ack();
	await reader.close();
	await reader.start();
	assert.deepEqual(dataOf(await take(reader.messages(), 1)), [{ hello: "wörld" }]);
	await reader.close();

	const again = await tenant.agent("reader", { signer });
	for (const message of await take(again.messages(), 2)) message.ack();
	await again.flush();
	await again.close();
	await writer.publish("news", "third");
	const last = await tenant.agent("reader", { signer });
	assert.deepEqual(dataOf(await take(last.messages(), 1)), ["third"]);
});

test("a loop acknowledges by itself with autoAck, and its signal and close end it", async (t) => {
	const tenant = await Tenant.create(t);
	await tenant.channel("news");
	const signer = await tenant.signer("reader");
	const agent = await tenant.agent("reader", { signer });
	const controller = new AbortController();
	const found: unknown[] = [];
	const loop = (async () => {
		for await (const message of agent.messages("news", { autoAck: true, signal: controller.signal })) found.push(message.data);
	})();
	await agent.publish("news", 1);
	await agent.publish("news", 2);
	await eventually(() => found.length === 2);
	controller.abort();
	await loop;
	const closing = take(agent.messages(), 1);
	await agent.publish("news", 3);
	assert.deepEqual(dataOf(await closing), [3]);
	const ended = take(agent.messages("news"), 1);
	await agent.flush();
	await agent.close();
	assert.deepEqual(await ended, []);
	assert.equal(agent.state, "closed");
	await assert.rejects(agent.publish("news", 4), /not open/);
	const next = await tenant.agent("reader", { signer });
	assert.deepEqual(dataOf(await take(next.messages(), 1)), [3]);
});

test("loops over two channels get their own messages, by handle or id", async (t) => {
	const tenant = await Tenant.create(t);
	const agent = await tenant.agent("both");
	await tenant.channel("left");
	const right = await tenant.channel("right");
	const loops = [agent.messages("left"), agent.messages(right), agent.messages(["@"])] as const;
	const firsts = loops.map((loop) => loop.next());
	await eventually(async () => (await tenant.client.listAgentSubscriptions(tenant.id, "both")).items.length === 2);
	await agent.publish("right", "r");
	await agent.publish("left", "l");
	await agent.publish("@both", "direct");
	const found = await Promise.all(firsts);
	assert.deepEqual(found.map(({ value }) => (value as Message).data), ["l", "r", "direct"]);
	assert.ok((found[2]?.value as Message).isDirect);
});

test("an answer goes to the inbox of the sender and names its cause", async (t) => {
	const tenant = await Tenant.create(t);
	const [asker, worker] = [await tenant.agent("asker"), await tenant.agent("worker")];
	const sent = await asker.publish("@worker", "task");
	const [task] = (await take(worker.messages(), 1)) as [Message];
	await task.reply({ result: 1 });
	const [answer] = (await take(asker.messages("@"), 1)) as [Message];
	assert.deepEqual([answer.data, answer.causedBy, answer.hops], [{ result: 1 }, sent.messageId, 1]);
	const onward = await asker.publish("@worker", "more", { causedBy: answer });
	assert.equal((await take(worker.messages(), 1))[0]?.causedBy, answer.messageId);
	assert.ok(onward.messageId);
});

test("a message of a queue is given back, extended, acknowledged, and dead-lettered", async (t) => {
	const tenant = await Tenant.create(t);
	await tenant.channel("tasks", { type: "queue", ack_wait_s: 30 });
	const worker = await tenant.agent("worker");
	await worker.publish("tasks", "a");
	const messages = worker.messages("tasks");
	const [first] = (await take(messages, 1)) as [Message];
	assert.equal(first.deliveries, 1);
	await first.extend();
	await first.nak({ delayMs: 0 });
	assert.ok(first.isSettled);
	const [second] = (await take(messages, 1)) as [Message];
	assert.deepEqual([second.data, second.deliveries], ["a", 2]);
	await worker.publish("tasks", "b");
	second.ack();
	const [third] = (await take(messages, 1)) as [Message];
	assert.equal(third.data, "b");
	await third.nak({ dead: true });
	const dead = await tenant.signer("undertaker");
	await tenant.subscribe("tasks.dead", "undertaker");
	const undertaker = await tenant.agent("undertaker", { signer: dead });
	const [letter] = (await take(undertaker.messages("tasks.dead", { start: "first" }), 1)) as [Message];
	assert.deepEqual([letter.data, letter.deadLetter?.reason], ["b", "rejected"]);
	await assert.rejects(letter.nak(), /only a message of a queue/);
});

test("an agent asks another one, and gets one answer, several, or an error", async (t) => {
	const tenant = await Tenant.create(t);
	const [asker, worker] = [await tenant.agent("asker"), await tenant.agent("worker")];
	await assert.rejects(asker.ask("worker", 1), { code: "agent_away", wasDelivered: false, isTemporary: true });
	let started = 0;
	let aborted = 0;
	await worker.onRequest(async ({ data, senderId, headers, deadline, signal }) => {
		if (data === "refuse") throw new AgentError("no_capacity", "ask another agent");
		if (data === "fail") throw new Error("a secret of the program");
		if (data === "wait") {
			started += 1;
			await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
			aborted += 1;
		}
		if (data === "many") return several();
		return { data, senderId, headers, isDated: deadline !== null && deadline.getTime() > 0 };
	});
	async function* several(): AsyncGenerator<number> {
		yield 1;
		yield 2;
	}
	const answer = (await asker.ask("worker", { n: 1 }, { headers: { trace: "7f" } })) as Record<string, unknown>;
	assert.deepEqual([answer["data"], answer["headers"], answer["isDated"]], [{ n: 1 }, { trace: "7f" }, true]);
	const answers: unknown[] = [];
	for await (const each of asker.askStream("worker", "many")) answers.push(each);
	assert.deepEqual(answers, [1, 2]);
	assert.equal(await asker.ask("worker", "many"), 1);
	await assert.rejects(asker.ask("worker", "refuse"), { code: "agent_error", agentCode: "no_capacity", message: /ask another agent/, wasDelivered: true });
	await assert.rejects(asker.ask("worker", "fail"), { code: "agent_error", agentCode: "failed", message: /^(?!.*secret)/ });
	await assert.rejects(asker.ask("worker", "wait", { timeoutMs: 2000 }), { code: "timed_out" });
	await eventually(() => aborted === started);
	const before = started;
	const controller = new AbortController();
	const cancelled = assert.rejects(asker.ask("worker", "wait", { signal: controller.signal }), { name: "AbortError" });
	await eventually(() => started === before + 1);
	controller.abort();
	await cancelled;
	await eventually(() => aborted === started);
});

test("an agent logs in by a token, which a function renews", async (t) => {
	const tenant = await Tenant.create(t);
	const token = agentToken({ url: url(), tenant: tenant.id, agent: "scout", signer: await tenant.signer("scout") });
	const agent = await tenant.agent("scout", { token });
	await agent.publish("@scout", "to myself");
	assert.deepEqual(dataOf(await take(agent.messages(), 1)), ["to myself"]);
	const withoutNames = await Agent.connect({ url: url(), token: await token() });
	t.after(() => withoutNames.close());
	assert.equal(withoutNames.state, "connected");
});

test("a refused login rejects start with its reason, and is not repeated", async (t) => {
	const tenant = await Tenant.create(t);
	await tenant.signer("scout");
	const stranger = await keySigner(await makeKey(await folder(t)));
	const options = { url: url(), tenant: tenant.id, agent: "scout", signer: stranger, log: () => {} };
	await assert.rejects(Agent.connect(options), { code: "bad_credentials" });
	await assert.rejects(Agent.connect({ ...options, service: "artcafe:another" }), { code: "challenge_refused", message: /names the service/ });
	await assert.rejects(Agent.connect({ url: url(), token: "x.y.z", log: () => {} }), { code: /unauthenticated|bad_credentials/ });
	const failing = { url: url(), log: () => {}, connectTimeoutMs: 1, token: () => Promise.reject(new Error("no network")) };
	await assert.rejects(Agent.connect(failing), { code: "unavailable", message: /no network/ });
	assert.throws(() => new Agent({ url: url() }), { code: "invalid" });
	assert.throws(() => new Agent({ url: url(), signer: stranger }), { code: "invalid" });
});

test("an address that is no gateway is refused, and an absent server is tried until the time is over", async (t) => {
	const signer = await keySigner(await makeKey(await folder(t)));
	const options = { tenant: "ten_1", agent: "scout", signer, log: () => {}, connectTimeoutMs: 300 };
	await assert.rejects(Agent.connect({ ...options, url: "ftp://127.0.0.1" }), { code: "invalid" });
	await assert.rejects(Agent.connect({ ...options, url: "http://127.0.0.1/?token=1" }), { code: "invalid" });
	await assert.rejects(Agent.connect({ ...options, url: `${url().replace("http", "ws")}/v1/connect` }), { code: "invalid", message: /not an ArtCafe gateway: it answered HTTP 40/ });
	await assert.rejects(Agent.connect({ ...options, url: "ws://127.0.0.1:9" }), { code: "unavailable", message: /ECONNREFUSED/ });
	// The next address is tried: the server is there, and refuses the login.
	await assert.rejects(Agent.connect({ ...options, url: ["ws://127.0.0.1:9", url()] }), { code: "bad_credentials" });
});

test("data that JSON or the server cannot take is refused before it is sent, and the connection stays", async (t) => {
	const tenant = await Tenant.create(t);
	const agent = await tenant.agent("scout");
	const deep = (levels: number): unknown => (levels === 0 ? 1 : [deep(levels - 1)]);
	const circular: unknown[] = [];
	circular.push(circular);
	for (const data of [NaN, { a: Infinity }, 10n, circular, "\ud800", { "\udc00": 1 }, deep(33), deep(400), () => 1, Symbol("x")]) {
		await assert.rejects(agent.publish("@scout", data), { code: "invalid" });
	}
	await assert.rejects(agent.publish("@scout", "x".repeat(66_000)), { code: "too_large" });
	await assert.rejects(agent.publish("@scout", "é".repeat(33_000)), { code: "too_large" });
	await agent.publish("@scout", deep(32));
	await agent.publish("@scout", ["\\ud800", "😀", "]]}}"]);
	await agent.publish("@scout", undefined);
	assert.deepEqual(dataOf(await take(agent.messages(), 3)), [deep(32), ["\\ud800", "😀", "]]}}"], null]);
	await assert.rejects(agent.publish("nowhere", 1), { code: "channel_not_found", isTemporary: false });
	await assert.rejects(agent.ask("scout", 1, { timeoutMs: 0 }), { code: "invalid" });
	assert.equal(agent.state, "connected");
});

test("a revoked agent's connection ends for good", async (t) => {
	const tenant = await Tenant.create(t);
	const events: StateEvent[] = [];
	const agent = await tenant.agent("scout", { onState: (event) => events.push(event) });
	const ended = assert.rejects(take(agent.messages(), 1), { code: "revoked" });
	await tenant.client.changeAgent(tenant.id, "scout", { status: "disabled" });
	await ended;
	assert.equal(agent.state, "failed");
	assert.deepEqual(events.map(({ kind }) => kind), ["connected", "failed"]);
	await assert.rejects(agent.publish("@scout", 1), { code: "revoked" });
});

test("a reader that does not take its messages stops the server, and loses none", async (t) => {
	const tenant = await Tenant.create(t);
	const [writer, reader] = [await tenant.agent("writer"), await tenant.agent("reader")];
	await tenant.channel("news");
	await reader.subscribe("news");
	const count = 1100; // above the 1,024 that the agent buffers
	await Promise.all(Array.from({ length: count }, (_, at) => writer.publish("news", { at, text: "x".repeat(500) })));
	const found = await take(reader.messages(), count);
	assert.deepEqual(found.map((message) => (message.data as { at: number }).at).sort((a, b) => a - b), Array.from({ length: count }, (_, at) => at));
	assert.deepEqual(found.map(({ seq }) => seq), found.map(({ seq }) => seq).sort((a, b) => (a ?? 0) - (b ?? 0)));
});

test("messages beyond an unacknowledged window wait, and the program is warned", async (t) => {
	const tenant = await Tenant.create(t);
	await tenant.channel("news");
	const warnings: string[] = [];
	const agent = await tenant.agent("reader", { maxUnacked: 2, log: (text) => warnings.push(text) });
	await agent.subscribe("news");
	for (const at of [1, 2, 3]) await agent.publish("news", at);
	const messages = agent.messages();
	const [first, second] = await take(messages, 2);
	const third = messages.next();
	await eventually(() => warnings.some((text) => text.includes("2 messages of a channel are unacknowledged")));
	first?.ack();
	second?.ack();
	assert.equal(((await third).value as Message).data, 3);
});
