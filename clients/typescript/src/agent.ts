/** An agent: it publishes, receives, asks and answers over one connection, which it restores. */

import { AgentConnection, type AgentState, type StateEvent } from "./connection.js";
import { Dialer } from "./dial.js";
import { bodyText } from "./encoding.js";
import { AgentError, ArtcafeError, invalid, notOpen } from "./errors.js";
import type { Cause, LimitsPush, LimitState, Publish, PublishReply, Request as RequestBody, RequestPush } from "./generated/frames.js";
import type { Item, Start } from "./inbox.js";
import { Message, receiptOf, type AnswerOptions, type Gap, type Receipt } from "./messages.js";
import { Notice } from "./notice.js";
import type { PendingCommand } from "./outbox.js";
import type { RequestHandler } from "./requests.js";
import type { Signer } from "./signer.js";

const TIMEOUT_MS = 30_000;
/** A key stores one message within 10 minutes; retries of a publish end before that. */
const MAX_PUBLISH_MS = 540_000;
const MAX_ASK_MS = 120_000;
const MAX_REPLIES = 1000;

export interface AgentOptions {
	/** The REST address or the gateway's (ws://, wss://), or several of them. In a browser: the gateway's. */
	url: string | readonly string[];
	/** The tenant's id. With a `token` it may be left out. */
	tenant?: string;
	/** The agent's id or handle. With a `token` it may be left out. */
	agent?: string;
	/** Signs the login. `artcafe/node` has signers. */
	signer?: Signer;
	/** An access token in place of a signer; a function is called for each connection, so that the token is fresh. */
	token?: string | (() => string | Promise<string>);
	/** The only service to sign challenges of. By default that of the first login. */
	service?: string;
	/**
	 * The window: the server sends at most this many messages of a channel beyond the last ack. By default none in Node.js,
	 * which stops reading instead, and 64 in browsers. Without it a queue sends one message at a time.
	 */
	maxUnacked?: number;
	/** Whether the connection is sent messages of queues. */
	queues?: boolean;
	/** How many requests are answered at once. */
	maxRequests?: number;
	/** A command refused by a rate limit is repeated if the server asks for a wait of at most this long. */
	maxRateWaitMs?: number;
	/** How long `start` tries to connect. */
	connectTimeoutMs?: number;
	/** How long `close` waits for replies and acks. */
	closeTimeoutMs?: number;
	/** Called when the connection is established, lost or failed, and for each gap. */
	onState?: (event: StateEvent) => void;
	/** Receives warnings; `console.warn` by default. */
	log?: (text: string) => void;
}

export interface PublishOptions extends AnswerOptions {
	/** The message that this one answers: a message, its id, or its position. */
	causedBy?: Message | string | Cause;
	/** From this time on it is not delivered any more. */
	expiresAt?: Date;
	/** Deliver it at this time, at most 30 days ahead. */
	deliverAt?: Date;
}

export interface SubscribeOptions {
	/** Where delivery begins: "cursor" (after the last ack), "new", "first", or a sequence. */
	start?: Start;
	timeoutMs?: number;
}

/** The position at which a delivery begins. All null for a queue. */
export interface Subscribed {
	readonly epoch: string | null;
	/** Delivery continues after this sequence. */
	readonly cursor: number | null;
	/** The channel's newest message; 0 if there is none. */
	readonly last: number | null;
}

export interface MessagesOptions {
	start?: Start;
	/** Acknowledge a message when the next one is requested. The message before a `break` is not acknowledged. */
	autoAck?: boolean;
	/** End the loop when this signal aborts. */
	signal?: AbortSignal;
}

export interface AskOptions {
	/** How long to wait for the last answer, at most 120 s. */
	timeoutMs?: number;
	headers?: Readonly<Record<string, string>>;
	signal?: AbortSignal;
}

export class Agent {
	readonly #options: AgentOptions;
	#connection: AgentConnection | undefined;
	#running: Promise<void> = Promise.resolve();
	#handler: RequestHandler | undefined;

	constructor(options: AgentOptions) {
		const { signer, token, tenant, agent } = options;
		if ((signer === undefined) === (token === undefined)) throw invalid("signer", "give either a signer or a token");
		if (signer !== undefined && (!tenant || !agent)) throw invalid("tenant", "a login by a signer needs tenant and agent");
		this.#options = options;
	}

	/** Return an agent that is connected. Rejects as `start` does. */
	static async connect(options: AgentOptions): Promise<Agent> {
		const agent = new Agent(options);
		await agent.start();
		return agent;
	}

	get state(): AgentState {
		return this.#connection?.state ?? "closed";
	}

	/** The name of the service that the agent logs in to; undefined before the first login if none was given. */
	get service(): string | undefined {
		return this.#connection?.service ?? this.#options.service;
	}

	/** The last known state of the tenant's limits, by name: of those that the server pushed, or that refused a command. */
	get limits(): ReadonlyMap<string, LimitState | LimitsPush> {
		return this.#connection?.limits ?? new Map();
	}

	/**
	 * Connect and log in. Repeats it while that can help, for `connectTimeoutMs`. Rejects with the server's error, such as
	 * `bad_credentials`. An agent may be started again after `close`.
	 */
	async start(): Promise<void> {
		if (this.#connection !== undefined) throw new Error("this Agent is started already");
		const connection = this.#newConnection();
		this.#connection = connection;
		this.#running = connection.run();
		try {
			await connection.waitOpen();
		} catch (error) {
			this.#connection = undefined;
			throw error;
		}
	}

	#newConnection(): AgentConnection {
		const { url, signer, token, ...given } = this.#options;
		const log = given.log ?? ((text: string) => console.warn(`artcafe: ${text}`));
		const proof = signer === undefined ? { token: token ?? "" } : { signer };
		const connection = new AgentConnection({
			dialer: new Dialer(url, proof, log),
			tenant: given.tenant,
			agent: given.agent,
			service: given.service,
			hasFreshTokens: typeof token === "function",
			maxUnacked: given.maxUnacked,
			takesQueues: given.queues ?? true,
			maxRequests: given.maxRequests ?? 16,
			maxRateWaitMs: given.maxRateWaitMs ?? 60_000,
			connectTimeoutMs: given.connectTimeoutMs ?? TIMEOUT_MS,
			onState: given.onState ?? (() => {}),
			log,
		});
		connection.inbox.publish = (channel, data, options) => this.publish(channel, data, options);
		connection.answering.handler = this.#handler;
		return connection;
	}

	/** Wait for replies and acks on the way, at most `closeTimeoutMs`, and close the connection. Loops over messages end. */
	async close(): Promise<void> {
		const connection = this.#connection;
		if (connection === undefined) return;
		await connection.drain(this.#options.closeTimeoutMs ?? 10_000);
		connection.leave();
		await this.#running;
		if (this.#connection === connection) this.#connection = undefined;
	}

	async [Symbol.asyncDispose](): Promise<void> {
		await this.close();
	}

	get #open(): AgentConnection {
		if (this.#connection === undefined) throw notOpen();
		return this.#connection;
	}

	/**
	 * Publish a message to a channel, named by handle or id, or to an agent's inbox (`@researcher`). It is on disk when this
	 * resolves. An unanswered publish is repeated with the same key, so that it is stored once.
	 *
	 * Rejects with `invalid`, `too_large`, `channel_not_found` and other errors of the server, and after `timeoutMs` with the last
	 * temporary error, or `outcome_unknown`: publish again with the same `key` then.
	 */
	async publish(channel: string, data: unknown, options: PublishOptions = {}): Promise<Receipt> {
		const connection = this.#open;
		const body: Omit<Publish, "data"> = { channel, key: options.key ?? randomKey() };
		if (options.headers !== undefined) body.headers = options.headers;
		if (options.replyTo !== undefined) body.reply_to = options.replyTo;
		if (options.causedBy !== undefined) body.caused_by = causeOf(options.causedBy);
		if (options.expiresAt !== undefined) body.expires_at = options.expiresAt.toISOString();
		if (options.deliverAt !== undefined) body.deliver_at = options.deliverAt.toISOString();
		const timeoutMs = Math.min(options.timeoutMs ?? TIMEOUT_MS, MAX_PUBLISH_MS);
		const reply = await connection.command("publish", bodyText("publish", body, connection.frameLimits, data), timeoutMs);
		return receiptOf(reply as PublishReply);
	}

	/**
	 * Start to receive a channel. Existing subscriptions of the agent are delivered without this call. Any start but the cursor
	 * discards the channel's buffered messages. Rejects with the server's error, such as `channel_not_found`.
	 */
	async subscribe(channel: string, { start = "cursor", timeoutMs = TIMEOUT_MS }: SubscribeOptions = {}): Promise<Subscribed> {
		const { epoch, cursor, last } = await this.#open.subscribe(channel, start, timeoutMs);
		return { epoch, cursor, last };
	}

	/** Stop the delivery of a channel on this connection. The subscription remains, and starts again on the next connection. */
	async unsubscribe(channel: string, { timeoutMs = TIMEOUT_MS }: { timeoutMs?: number } = {}): Promise<void> {
		const connection = this.#open;
		await connection.command("unsubscribe", bodyText("unsubscribe", { channel }, connection.frameLimits), timeoutMs);
	}

	/**
	 * Iterate over the messages of the given channels, after subscribing to each, or of all subscribed channels. The loop runs
	 * until the agent is closed, and throws the error that ends the connection for good.
	 *
	 * Several loops over one channel share its messages. A channel that is already received continues where it is. "@" stands for
	 * the agent's inbox.
	 */
	async *messages(channels: string | readonly string[] = [], options: MessagesOptions = {}): AsyncGenerator<Message, void, undefined> {
		for await (const item of this.items(channels, options)) if (item instanceof Message) yield item;
	}

	/** Iterate as `messages` does, and also over the gaps in the place of messages that will not come. */
	async *items(channels: string | readonly string[] = [], options: MessagesOptions = {}): AsyncGenerator<Message | Gap, void, undefined> {
		const chosen = typeof channels === "string" ? [channels] : channels;
		if (options.start !== undefined && chosen.length === 0) throw invalid("start", "needs channels");
		const connection = this.#open;
		for (const channel of chosen.filter((each) => each !== "@")) {
			if (options.start === undefined || options.start === "cursor") await connection.resubscribe(channel, TIMEOUT_MS);
			else await connection.subscribe(channel, options.start, TIMEOUT_MS);
		}
		let item: Item | undefined;
		while ((item = await connection.item(chosen, options.signal)) !== undefined) {
			yield item;
			if (options.autoAck && item instanceof Message && !item.isSettled) item.ack();
		}
	}

	/** Resolve when every ack so far has been written to the connection. Rejects with `unavailable` after `timeoutMs`. */
	async flush({ timeoutMs = TIMEOUT_MS }: { timeoutMs?: number } = {}): Promise<void> {
		await this.#open.flush(timeoutMs);
	}

	// --- requests ---

	/**
	 * Send a request to an agent of the tenant, by its handle or id, and return the data of its answer.
	 *
	 * The request is sent at most once. Rejects with `agent_away`, `agent_busy`, `agent_error` (with `agentCode`), `timed_out`,
	 * `request_lost` and other errors, whose `wasDelivered` says whether the agent was sent the request.
	 */
	async ask(agent: string, data: unknown, options: AskOptions = {}): Promise<unknown> {
		for await (const answer of this.askStream(agent, data, { ...options, maxReplies: 1 })) return answer;
		throw new AgentError("no_answer", "the agent ended its answers without one");
	}

	/** Send a request as `ask` does, and yield each of its answers, at most `maxReplies` (1,000). Leaving the loop cancels it. */
	async *askStream(agent: string, data: unknown, options: AskOptions & { maxReplies?: number } = {}): AsyncGenerator<unknown, void, undefined> {
		const { timeoutMs = TIMEOUT_MS, headers, signal, maxReplies = MAX_REPLIES } = options;
		if (!(timeoutMs > 0 && timeoutMs <= MAX_ASK_MS)) throw invalid("timeoutMs", `must be above 0 and at most ${MAX_ASK_MS}`);
		const connection = this.#open;
		const body: Omit<RequestBody, "data"> = { agent, timeout_s: Math.max(1, timeoutMs / 1000), max_replies: maxReplies };
		if (headers !== undefined) body.headers = headers;
		const answers: RequestPush[] = [];
		const arrived = new Notice();
		let pending: PendingCommand | undefined;
		let outcome: { error: unknown } | "done" | undefined;
		const finish = (found: { error: unknown } | "done"): void => {
			outcome = found;
			arrived.notify();
		};
		const onPart = (part: RequestPush): void => {
			answers.push(part);
			arrived.notify();
		};
		const text = bodyText("request", body, connection.frameLimits, data);
		const timeoutError = new ArtcafeError("timed_out", `no answer came within ${timeoutMs} ms; whether the agent has acted on the request is unknown`);
		connection.command("request", text, timeoutMs, { onPart, timeoutError, onPending: (command) => (pending = command) }).then(
			(last) => {
				if ("data" in last) answers.push(last as RequestPush);
				finish("done");
			},
			(error: unknown) => finish({ error }),
		);
		try {
			for (;;) {
				signal?.throwIfAborted();
				const answer = answers.shift();
				if (answer !== undefined) yield answer.data ?? null;
				else if (outcome === "done") return;
				else if (outcome !== undefined) throw outcome.error;
				else await arrived.wait(undefined, signal);
			}
		} finally {
			if (outcome === undefined && pending !== undefined) connection.cancel(pending);
		}
	}

	/**
	 * Answer the requests of others with `handler` from now on: it returns the answer, a promise of it, or an async iterable of
	 * several. It throws `AgentError(code, message)` to answer with an error of its own; another exception is logged and answered
	 * as the error `failed`. Without a handler others get `agent_away`.
	 */
	async onRequest(handler: RequestHandler): Promise<void> {
		this.#handler = handler;
		const connection = this.#connection;
		if (connection === undefined) return;
		connection.answering.handler = handler;
		await connection.command("accept", JSON.stringify({ max_requests: connection.answering.maxRequests }), TIMEOUT_MS);
	}
}

function causeOf(given: Message | string | Cause): string | Cause {
	if (!(given instanceof Message)) return given;
	if (given.seq === null) return given.messageId;
	return { channel: given.channelId, seq: given.seq, message_id: given.messageId };
}

/** Return a random key. `crypto.randomUUID` would need a page with TLS. */
function randomKey(): string {
	return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
