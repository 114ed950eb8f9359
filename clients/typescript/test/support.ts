/** What the tests share: the server of the run, tenants, agents with keys, and a relay that breaks connections. */

import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { TestContext } from "node:test";

import { Agent, Client, type AgentOptions, type Message, type Signer } from "artcafe";
import { keySigner } from "artcafe/node";

export const WAIT_MS = 30_000;
const run = promisify(execFile);

function variable(name: string): string {
	const found = process.env[name];
	if (!found) throw new Error(`${name} is not set: run the tests by npm test`);
	return found;
}

export const url = (): string => variable("ARTCAFE_TEST_URL");

/** Return the REST client of a tenant's owner. */
export function owner(): Client {
	return new Client({ url: url(), token: variable("ARTCAFE_TEST_TOKEN") });
}

/** Return a folder that is removed after the test. */
export async function folder(test: TestContext): Promise<string> {
	const made = await mkdtemp(join(tmpdir(), "artcafe-"));
	test.after(() => rm(made, { recursive: true, force: true }));
	return made;
}

/** Create a key pair with ssh-keygen, and return the path of the private key. */
export async function makeKey(place: string, options: string[] = ["-t", "ed25519"], passphrase = ""): Promise<string> {
	const path = join(place, `key-${options.join("")}`);
	await run("ssh-keygen", ["-q", ...options, "-N", passphrase, "-C", "a comment, of words", "-f", path]);
	return path;
}

/** A tenant of the server's owner, with its agents' connections, which are closed after the test. */
export class Tenant {
	private constructor(
		readonly test: TestContext,
		readonly client: Client,
		readonly id: string,
		readonly folder: string,
	) {}

	static async create(test: TestContext): Promise<Tenant> {
		const client = owner();
		const { id } = await client.createTenant({ name: test.name.slice(0, 40) });
		return new Tenant(test, client, id, await folder(test));
	}

	/** Register an agent, and return its signer. */
	async signer(handle: string): Promise<Signer> {
		const path = join(this.folder, handle);
		await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path]);
		const signer = await keySigner(path);
		await this.client.createAgent(this.id, { name: handle, public_key: signer.publicKey });
		return signer;
	}

	async channel(handle: string, options: object = {}): Promise<string> {
		return (await this.client.createChannel(this.id, { name: handle, ...options })).id;
	}

	async subscribe(channel: string, agent: string): Promise<void> {
		await this.client.putSubscription(this.id, channel, agent, {});
	}

	/** Return a connected agent; it is registered unless a signer is given. */
	async agent(handle: string, options: Partial<AgentOptions> = {}): Promise<Agent> {
		const proof = options.token === undefined ? { signer: options.signer ?? (await this.signer(handle)) } : {};
		const agent = new Agent({ url: url(), tenant: this.id, agent: handle, log: () => {}, ...proof, ...options });
		this.test.after(() => agent.close());
		await agent.start();
		return agent;
	}
}

/** Return the next messages of an iterator. */
export async function take<T>(messages: AsyncIterator<T>, count: number): Promise<T[]> {
	const found: T[] = [];
	while (found.length < count) {
		const { value, done } = await messages.next();
		if (done) break;
		found.push(value);
	}
	return found;
}

export function dataOf(messages: Message[]): unknown[] {
	return messages.map((message) => message.data);
}

/** Wait until a condition holds. */
export async function eventually(holds: () => boolean | Promise<boolean>): Promise<void> {
	const until = Date.now() + WAIT_MS;
	while (!(await holds())) {
		if (Date.now() > until) throw new Error(`this does not become true: ${holds}`);
		await new Promise((resolve) => setTimeout(resolve, 20));
	}
}

/** A TCP relay in front of the gateway, which can end connections in ways that a server or a network does. */
export class Relay {
	url = "";
	/** Connections so far. */
	accepted = 0;
	/** Whether new connections are closed at once. */
	isDown = false;
	/** Whether bytes of the server are dropped. */
	isDeaf = false;
	readonly #pairs = new Set<{ client: Socket; server: Socket }>();

	static async start(test: TestContext): Promise<Relay> {
		const gateway = new URL((await owner().readHome()).gateway_url);
		const relay = new Relay();
		const listener = createServer((client) => relay.#accept(client, gateway));
		await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
		test.after(() => {
			relay.cut();
			listener.close();
		});
		relay.url = `ws://127.0.0.1:${(listener.address() as AddressInfo).port}${gateway.pathname}`;
		return relay;
	}

	#accept(client: Socket, gateway: URL): void {
		this.accepted += 1;
		if (this.isDown) {
			client.destroy();
			return;
		}
		const server = connect(Number(gateway.port), gateway.hostname);
		const pair = { client, server };
		this.#pairs.add(pair);
		const end = (): void => {
			this.#pairs.delete(pair);
			client.destroy();
			server.destroy();
		};
		client.on("error", end).on("close", end).pipe(server);
		server.on("error", end).on("close", end).on("data", (bytes: Buffer) => {
			if (!this.isDeaf) client.write(bytes);
		});
	}

	/** Break every connection without a close frame. */
	cut(): void {
		for (const { client } of [...this.#pairs]) client.destroy();
	}

	/** End every connection with a close frame of this code. */
	close(code: number): void {
		for (const { client, server } of [...this.#pairs]) {
			const payload = Buffer.alloc(2);
			payload.writeUInt16BE(code);
			server.removeAllListeners("data");
			client.write(Buffer.concat([Buffer.of(0x88, payload.length), payload]));
		}
	}
}
