/** The REST client against a real server. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import test from "node:test";

import { agentToken, Client } from "artcafe";
import { owner, Tenant, url } from "./support.js";

test("the client creates, reads, changes, lists and deletes", async (t) => {
	const tenant = await Tenant.create(t);
	const { client, id } = tenant;
	assert.equal((await client.readHome()).asyncapi, "/asyncapi.json");
	for (const name of ["c1", "c2", "c3"]) await tenant.channel(name);
	assert.equal((await client.changeChannel(id, "c2", { name: "Second" })).name, "Second");
	const names: string[] = [];
	for await (const channel of client.all((cursor) => client.listChannels(id, { limit: 2, cursor }))) names.push(channel.name);
	assert.deepEqual(names.sort(), ["Second", "c1", "c3"]);
	assert.equal(await client.deleteChannel(id, "c3"), undefined);
	await assert.rejects(client.readChannel(id, "c3"), { code: "channel_not_found", isTemporary: false, name: "ArtcafeError" });
	await assert.rejects(client.readTenant("ten_nobody"), { code: "tenant_not_found" });
	await assert.rejects(client.createChannel(id, { name: "" }), { code: "invalid" });
});

test("a repeat with the same idempotency key creates nothing new", async (t) => {
	const tenant = await Tenant.create(t);
	const create = (): Promise<{ id: string }> => tenant.client.createChannel(tenant.id, { name: "once" }, { idempotencyKey: "key-1" });
	assert.equal((await create()).id, (await create()).id);
});

test("an id that would change the path is refused, and any other is encoded", async () => {
	for (const id of ["", ".", ".."]) assert.throws(() => owner().readTenant(id), { code: "invalid" });
	for (const id of ["a/b", "..%2f", "é?", "#"]) await assert.rejects(owner().readTenant(id), { code: "tenant_not_found" });
});

test("an agent publishes, pulls and acknowledges over REST by its own token", async (t) => {
	const tenant = await Tenant.create(t);
	const signer = await tenant.signer("cron");
	let logins = 0;
	const login = agentToken({ url: url(), tenant: tenant.id, agent: "cron", signer });
	const token = (): Promise<string> => {
		logins += 1;
		return login();
	};
	const client = new Client({ url: `${url()}/v1/`, token });
	await tenant.channel("news");
	await tenant.subscribe("news", "cron");
	const { seq } = await client.publish(tenant.id, "news", { data: { n: 1 }, key: "k" });
	const pulled = await client.pullMessages(tenant.id, "cron", { wait_s: 20 });
	assert.deepEqual(pulled.items.map((message) => [message["seq"], message["data"]]), [[seq, { n: 1 }]]);
	await client.acknowledgeMessages(tenant.id, "cron", { epoch: pulled.epoch, acks: [{ channel: "news", seq: seq ?? 0 }] });
	assert.equal(logins, 1);
	await assert.rejects(client.createChannel(tenant.id, { name: "mine" }), { code: "forbidden" });
	await assert.rejects(agentToken({ url: url(), tenant: tenant.id, agent: "cron", signer, service: "another" })(), { code: "challenge_refused" });
});

test("a request to a server that is absent, or no ArtCafe, says so", async (t) => {
	const listener = createServer();
	await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
	const absent = `http://127.0.0.1:${(listener.address() as AddressInfo).port}`;
	await new Promise((resolve) => listener.close(resolve));
	await assert.rejects(new Client({ url: absent }).readHome(), { code: "unavailable", isTemporary: true, message: /ECONNREFUSED/ });
	await assert.rejects(new Client({ url: absent }).createTenant({ name: "a" }), { code: "unavailable" });
	assert.throws(() => new Client({ url: "ws://127.0.0.1" }), { code: "invalid" });
	let requests = 0;
	const answers = [
		{ status: 200, headers: {}, body: "<html>" },
		{ status: 404, headers: {}, body: "<html>" },
		{ status: 502, headers: {}, body: "<html>" },
		{ status: 429, headers: { "retry-after": "1" }, body: JSON.stringify({ code: "too_fast", detail: "wait" }) },
		{ status: 429, headers: { "retry-after": "9" }, body: JSON.stringify({ code: "too_fast", detail: "wait" }) },
	];
	const proxy = createServer((_, response) => {
		const answer = answers[requests];
		requests += 1;
		if (answer === undefined) response.destroy();
		else response.writeHead(answer.status, answer.headers).end(answer.body);
	});
	await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
	t.after(() => proxy.close());
	const client = new Client({ url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`, maxRateWaitMs: 5000 });
	await assert.rejects(client.readHome(), { code: "invalid", message: /not one of ArtCafe/ });
	await assert.rejects(client.readHome(), { code: "invalid", message: /HTTP 404.*is it the REST address/ });
	await assert.rejects(client.readHome(), { code: "unavailable", message: /HTTP 502/ });
	// The first 429 is waited for; the second asks for more than the client waits.
	await assert.rejects(client.readHome(), { code: "too_fast", retryAfterMs: 9000, isTemporary: true });
	assert.equal(requests, 5);
	await assert.rejects(client.createTenant({ name: "a" }), { code: "outcome_unknown", isTemporary: true });
	await assert.rejects(client.readHome(), { code: "unavailable" });
	await assert.rejects(client.readHome({ signal: AbortSignal.abort() }), { name: "AbortError" });
	assert.equal(requests, 7);
});

test("an expired token is renewed once, and the request is repeated", async (t) => {
	let tokens = 0;
	const server = createServer((request, response) => {
		const isFresh = request.headers.authorization === "Bearer token-2";
		const body = isFresh ? { items: [], next_cursor: null } : { code: "credentials_expired", detail: "expired" };
		response.writeHead(isFresh ? 200 : 401).end(JSON.stringify(body));
	});
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	t.after(() => server.close());
	const at = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
	const renewing = new Client({ url: at, token: () => `token-${++tokens}` });
	assert.deepEqual((await renewing.listTenants()).items, []);
	await renewing.listTenants();
	assert.equal(tokens, 2);
	await assert.rejects(new Client({ url: at, token: "token-1" }).listTenants(), { code: "credentials_expired" });
	await assert.rejects(new Client({ url: at, token: () => "token-1" }).listTenants(), { code: "credentials_expired" });
});
