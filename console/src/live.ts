/**
 * The person's connection to the gateway: the presence of the tenant's agents, and the messages of watched channels.
 *
 * It reconnects by itself. A watch of the gateway shows only new messages, so after each connection, and wherever `prev` shows
 * that messages were skipped, they are read from the history: a watcher gets every message of the log once, in order.
 */

import { signal } from "@preact/signals";

import { gatewayAddress } from "../../clients/typescript/src/addresses.js";
import { delayMs } from "../../clients/typescript/src/backoff.js";
import { lostByClose } from "../../clients/typescript/src/close-codes.js";
import { ArtcafeError, type ConnectionLost, errorOf } from "../../clients/typescript/src/errors.js";
import type { PresencePush } from "../../clients/typescript/src/generated/frames.js";
import { openSocket } from "../../clients/typescript/src/socket-browser.js";
import type { Socket } from "../../clients/typescript/src/socket.js";
import { ClientSession, type CommandKind, SUBPROTOCOL } from "../../clients/typescript/src/wire-session.js";
import { type ChannelMessage, messagesOf, type MissingRange } from "./messages/message.js";
import { client, home, readMe, role, token } from "./session.js";

const OPEN_MS = 10_000;
const PAGE = 200;
const CONNECT_ID = 1;

export type ConnectionState = "off" | "connecting" | "connected" | "lost";

export interface WatchHandlers {
	onMessage: (message: ChannelMessage) => void;
	onGap: (gap: MissingRange) => void;
	/** The watch has ended: the channel was deleted, or may not be read any more. */
	onError: (error: ArtcafeError) => void;
}

export const connection = signal<ConnectionState>("off");
/** Why the connection ended for good. */
export const failure = signal<ArtcafeError | null>(null);
/** The connected agents, by id, and those that left since; null until it is known. */
export const presence = signal<ReadonlyMap<string, PresencePush> | null>(null);

let current: Live | null = null;

/** Connect to the gateway for a tenant, in place of the connection before; null ends it. */
export function connectTo(tenant: string | null): void {
	if (current?.tenant === tenant) return;
	current?.end();
	presence.value = null;
	failure.value = null;
	connection.value = "off";
	current = tenant === null ? null : new Live(tenant);
}

/** Connect again after a failure, such as the suspension of the tenant. Watches go on. */
export function reconnect(): void {
	failure.value = null;
	void current?.run();
}

/**
 * Watch a channel from its last stored message on, or above `after`. Returns a function that ends the watch. The handlers get
 * each stored message once and in order, also after a lost connection.
 */
export function watch(channel: string, after: number | null, handlers: WatchHandlers): () => void {
	if (current === null) return () => {};
	return current.watch(channel, after, handlers);
}

class ChannelWatch {
	#seq: number | null;
	#isReading = false;
	#pending: ChannelMessage[] = [];

	constructor(
		readonly tenant: string,
		readonly channel: string,
		after: number | null,
		readonly handlers: WatchHandlers,
	) {
		this.#seq = after;
	}

	/** Read what was stored while nothing was watched. Called after each reply to `watch`. */
	async resume(): Promise<void> {
		if (this.#isReading) return;
		this.#isReading = true;
		try {
			if (this.#seq !== null) await this.#readHistory();
			this.#isReading = false;
			for (const message of this.#pending.splice(0)) this.onMessage(message);
		} catch (error) {
			this.#pending = [];
			if (error instanceof ArtcafeError && !error.isTemporary) this.handlers.onError(error);
		} finally {
			this.#isReading = false;
		}
	}

	onMessage(message: ChannelMessage): void {
		if (message.seq == null) {
			this.handlers.onMessage(message);
			return;
		}
		if (this.#isReading) {
			this.#pending.push(message);
			return;
		}
		const prev = message.prev ?? null;
		if (this.#seq !== null && prev !== null && prev > this.#seq) {
			this.#pending.push(message);
			void this.resume();
			return;
		}
		this.#show(message, message.seq);
	}

	onGap(gap: MissingRange): void {
		if (this.#isReading) return; // The history shows it too.
		if (this.#seq !== null && gap.to !== null) this.#seq = Math.max(this.#seq, gap.to);
		this.handlers.onGap(gap);
	}

	async #readHistory(): Promise<void> {
		for (;;) {
			const page = await client.readHistory(this.tenant, this.channel, { after: String(this.#seq), limit: PAGE });
			if (page.gap !== undefined) this.handlers.onGap(page.gap);
			for (const item of messagesOf(page.items)) if (item.seq !== null) this.#show(item, item.seq);
			if (page.items.length === 0 || page.next_cursor === null) return;
		}
	}

	#show(message: ChannelMessage, seq: number): void {
		if (this.#seq !== null && seq <= this.#seq) return;
		this.#seq = seq;
		this.handlers.onMessage(message);
	}
}

class Live {
	readonly #watches = new Map<string, Set<ChannelWatch>>();
	/** The watched channel of each command without a reply. */
	readonly #asked = new Map<number, string>();
	#session = new ClientSession();
	#socket: Socket | null = null;
	#isOver = false;
	#failures = 0;
	#lastId = CONNECT_ID;
	#agents = new Map<string, PresencePush>();
	#lastError: ArtcafeError | undefined;

	constructor(readonly tenant: string) {
		void this.run();
	}

	end(): void {
		this.#isOver = true;
		this.#socket?.close(1000, "");
	}

	watch(channel: string, after: number | null, handlers: WatchHandlers): () => void {
		const watch = new ChannelWatch(this.tenant, channel, after, handlers);
		const others = this.#watches.get(channel);
		if (others === undefined) this.#watches.set(channel, new Set([watch]));
		else others.add(watch);
		if (this.#session.state === "connected") this.#askFor(channel);
		return () => this.#unwatch(watch);
	}

	#unwatch(watch: ChannelWatch): void {
		const others = this.#watches.get(watch.channel);
		others?.delete(watch);
		if (others?.size !== 0) return;
		this.#watches.delete(watch.channel);
		if (this.#session.state === "connected") this.#send("unwatch", { channel: watch.channel });
	}

	/** Connect, and reconnect until the end or a failure that another connection would repeat. */
	async run(): Promise<void> {
		while (!this.#isOver) {
			connection.value = this.#failures === 0 ? "connecting" : "lost";
			const lost = await this.#connectOnce();
			if (this.#isOver) return;
			connection.value = "lost";
			if (!lost.shouldReconnect) {
				failure.value = lost.error;
				void readMe().catch(() => {}); // The person may have been removed from the tenant.
				return;
			}
			this.#failures += 1;
			await new Promise((resolve) => setTimeout(resolve, delayMs(this.#failures)));
		}
	}

	/** Hold one connection, and return why it ended. */
	async #connectOnce(): Promise<ConnectionLost> {
		this.#session = new ClientSession();
		this.#agents = new Map();
		this.#asked.clear();
		this.#lastError = undefined;
		try {
			return await this.#open(await token());
		} catch (error) {
			const problem = error instanceof ArtcafeError ? error : new ArtcafeError("unavailable", String(error), { isTemporary: true });
			return lostByClose(1006, problem.message, undefined);
		}
	}

	#open(accessToken: string): Promise<ConnectionLost> {
		return new Promise((resolve, reject) => {
			const handlers = {
				onText: (text: string) => this.#receive(text),
				onClose: (code: number, reason: string) => resolve(lostByClose(code, reason, this.#lastError)),
			};
			openSocket(gatewayAddress(home.value?.gateway_url ?? ""), SUBPROTOCOL, OPEN_MS, handlers).then((socket) => {
				this.#socket = socket;
				if (this.#isOver) socket.close(1000, "");
				else socket.send(this.#session.send("connect", JSON.stringify({ access_token: accessToken, tenant_id: this.tenant }), CONNECT_ID));
			}, reject);
		});
	}

	#receive(text: string): void {
		try {
			this.#handle(text);
		} catch (error) {
			this.#lastError = error instanceof ArtcafeError ? error : undefined;
			this.#socket?.close(1002, "bad frame");
		}
	}

	#handle(text: string): void {
		const { id, kind, body } = this.#session.receive(text);
		if (kind === "connect") this.#onConnected(body.role ?? null);
		else if (kind === "presence") this.#onPresence(body);
		else if (kind === "message") for (const each of this.#of(body.channel)) each.onMessage(body as unknown as ChannelMessage);
		else if (kind === "gap") for (const each of this.#of(body.channel)) each.onGap(body);
		else if (kind === "watch") this.#onWatched(id, body.presence ?? false);
		else if (kind === "error") this.#onError(id, errorOf(body));
	}

	#onConnected(newRole: string | null): void {
		if (newRole !== role.value) void readMe();
		this.#failures = 0;
		connection.value = "connected";
		this.#send("watch", { presence: true });
		for (const channel of this.#watches.keys()) this.#askFor(channel);
	}

	#onPresence(push: PresencePush): void {
		this.#agents.set(push.agent, push);
		presence.value = new Map(this.#agents);
	}

	#onWatched(id: number | null, isPresence: boolean): void {
		if (isPresence) presence.value = new Map(this.#agents);
		const channel = id === null ? undefined : this.#asked.get(id);
		if (id === null || channel === undefined) return;
		this.#asked.delete(id);
		for (const each of this.#of(channel)) void each.resume();
	}

	#onError(id: number | null, error: ArtcafeError): void {
		this.#lastError = error;
		const channel = id === null ? undefined : this.#asked.get(id);
		if (channel === undefined) return;
		for (const each of this.#of(channel)) each.handlers.onError(error);
		this.#watches.delete(channel);
	}

	#askFor(channel: string): void {
		this.#asked.set(this.#send("watch", { channel }), channel);
	}

	#send(kind: CommandKind, body: object): number {
		this.#lastId += 1;
		this.#socket?.send(this.#session.send(kind, JSON.stringify(body), this.#lastId));
		return this.#lastId;
	}

	#of(channel: string): ReadonlySet<ChannelWatch> {
		return this.#watches.get(channel) ?? new Set();
	}
}
