/**
 * The connection of an agent to the gateway, over any number of sockets: it connects, reads, writes, and reconnects.
 *
 * `Session`, `Outbox` and `Inbox` keep the state without I/O; this module moves the frames.
 */

import { canPause } from "#socket";

import * as backoff from "./backoff.js";
import { lostBy, type Dialer, type Wire } from "./dial.js";
import { bodyText, type FrameLimits } from "./encoding.js";
import { ArtcafeError, ConnectionLost, notOpen, unavailable } from "./errors.js";
import type { LimitsPush, LimitState, Nak, Extend, Subscribe, SubscribeReply } from "./generated/frames.js";
import { Inbox, type Item, type Start } from "./inbox.js";
import type { Gap, Message } from "./messages.js";
import { Notice } from "./notice.js";
import { Outbox, type CommandOptions, type Outcome, type PendingCommand, type Reply } from "./outbox.js";
import { Answering, type ReplyChannel } from "./requests.js";
import { Session } from "./session.js";
import type { Socket } from "./socket.js";
import type { CommandKind } from "./wire-session.js";

/** The timeout of a command about a message of a queue. */
const SETTLE_MS = 30_000;
/** The window in browsers, which cannot stop reading a socket, if the program gives none. */
const BROWSER_WINDOW = 64;

export type AgentState = "closed" | "connecting" | "connected" | "lost" | "failed";
/** `failed` is final: the error says why no new connection can succeed. */
export type StateEvent =
	| { kind: "connected" }
	| { kind: "lost"; error: ArtcafeError }
	| { kind: "gap"; gap: Gap }
	| { kind: "failed"; error: Error };

export interface ConnectionOptions {
	dialer: Dialer;
	tenant: string | undefined;
	agent: string | undefined;
	service: string | undefined;
	hasFreshTokens: boolean;
	maxUnacked: number | undefined;
	takesQueues: boolean;
	maxRequests: number;
	maxRateWaitMs: number;
	connectTimeoutMs: number;
	onState: (event: StateEvent) => void;
	log: (text: string) => void;
}

export class AgentConnection implements ReplyChannel {
	readonly inbox: Inbox;
	readonly outbox: Outbox;
	readonly answering: Answering;
	/** The last known state of the tenant's limits, by name. */
	readonly limits = new Map<string, LimitState | LimitsPush>();
	frameLimits: FrameLimits = {};
	service: string | undefined;
	state: AgentState = "connecting";
	/** Why the connection has ended for good. */
	failure: Error | undefined;
	readonly #options: ConnectionOptions;
	readonly #maxUnacked: number | null;
	#wire: Wire | undefined;
	#isOpened = false;
	#isLeaving = false;
	#isFlushing = false;
	#isAckTimerSet = false;
	#isWarned = false;
	#heldTimer: ReturnType<typeof setTimeout> | undefined;
	#connectedAt = Infinity;
	/** A message arrived, a command finished, the first login succeeded, or the connection has ended. */
	readonly #progress = new Notice();
	readonly #leaving = new Notice();

	constructor(options: ConnectionOptions) {
		this.#options = options;
		this.service = options.service;
		this.#maxUnacked = options.maxUnacked ?? (canPause ? null : BROWSER_WINDOW);
		this.inbox = new Inbox(this.#maxUnacked);
		this.inbox.onAck = () => this.#flushSoon();
		this.inbox.onGap = (gap) => {
			this.log(gap.toString());
			this.#emit({ kind: "gap", gap });
		};
		this.inbox.settle = (message, kind, body) => this.#settle(message, kind, body);
		this.outbox = new Outbox(options.maxRateWaitMs);
		this.answering = new Answering(this, options.maxRequests);
	}

	// --- the loop ---

	/** Stay connected until `leave` or a final error, which `failure` keeps. */
	async run(): Promise<void> {
		try {
			await this.#stayConnected();
		} catch (error) {
			this.failure = error instanceof ConnectionLost ? error.error : error instanceof Error ? error : new Error(String(error));
		}
		this.state = this.failure === undefined ? "closed" : "failed";
		if (this.failure !== undefined && this.#isOpened) {
			this.log(`the connection has ended permanently: ${this.failure.message}`);
			this.#emit({ kind: "failed", error: this.failure });
		}
		this.#isLeaving = true;
		this.outbox.fail(this.failure ?? notOpen());
		this.#progress.notify();
	}

	async #stayConnected(): Promise<void> {
		let failures = 0;
		const giveUpAt = performance.now() + this.#options.connectTimeoutMs;
		while (!this.#isLeaving) {
			this.#connectedAt = Infinity;
			const lost = await this.#serve();
			if (lost === undefined || this.#isLeaving) return;
			// Count from 1 again only after a connection that lasted longer than the back-off: an agent that is closed right after
			// each login must not reconnect at once for ever.
			const isSteady = performance.now() - this.#connectedAt > backoff.boundMs(failures || 1);
			failures = isSteady ? 1 : failures + 1;
			const delayMs = backoff.delayMs(failures);
			if (!this.#shouldReconnect(lost) || !(this.#isOpened || performance.now() + delayMs < giveUpAt)) throw lost;
			this.log(`${lost.error.message}; connecting again in ${(delayMs / 1000).toFixed(1)} s`);
			if (this.state === "connected") {
				this.state = "lost";
				this.#emit({ kind: "lost", error: lost.error });
			}
			await this.#leaving.wait(delayMs);
		}
	}

	/** After a first login an unusable key counts as temporary: ssh-agent is restarting, or a token is unplugged. */
	#shouldReconnect(lost: ConnectionLost): boolean {
		return lost.shouldReconnect || (this.#isOpened && lost.error.code === "key_unusable");
	}

	/** Open one connection and use it until it ends. Return the reason, or undefined after `leave`. */
	async #serve(): Promise<ConnectionLost | undefined> {
		try {
			this.#wire = await this.#dial();
		} catch (error) {
			return lostBy(error);
		}
		if (this.#wire === undefined) return undefined;
		const { session, ended } = this.#wire;
		this.#connectedAt = performance.now();
		this.frameLimits = session.frameLimits;
		this.service = session.service;
		this.#isOpened = true;
		this.state = "connected";
		this.#emit({ kind: "connected" });
		this.#progress.notify();
		this.#flush();
		const lost = await ended;
		this.#onConnectionLost();
		return this.#isLeaving ? undefined : lost;
	}

	/** Return a logged-in connection, or undefined as soon as the agent leaves. */
	async #dial(): Promise<Wire | undefined> {
		const opening = this.#options.dialer.open(
			() => this.#newSession(),
			(socket) => this.#onFrame(socket),
		);
		const settled = new AbortController();
		try {
			const wire = await Promise.race([opening, this.#leaving.wait(undefined, settled.signal)]);
			if (wire !== undefined && !this.#isLeaving) return wire;
		} finally {
			settled.abort();
		}
		void opening.then(({ socket }) => socket.close(1000, "")).catch(() => {});
		return undefined;
	}

	#newSession(): Session {
		const { tenant, agent, takesQueues, hasFreshTokens } = this.#options;
		const { inbox, outbox, answering, limits, service } = this;
		const log = (text: string): void => this.log(text);
		return new Session({ tenant, agent, takesQueues, hasFreshTokens, maxUnacked: this.#maxUnacked, inbox, outbox, answering, limits, service, log });
	}

	#onFrame(socket: Socket): void {
		this.#flush();
		this.#progress.notify();
		// A pending command keeps the reader going: its reply must be read.
		if (this.inbox.isFull && this.outbox.size === 0) socket.pause();
	}

	/** Send the frames that are due. */
	#flush(): void {
		this.#isFlushing = false;
		const wire = this.#wire;
		if (wire === undefined) return;
		const now = performance.now();
		for (const frame of wire.session.due(now)) wire.socket.send(frame);
		clearTimeout(this.#heldTimer);
		const waitMs = this.outbox.waitMs(now);
		if (waitMs !== undefined) this.#heldTimer = setTimeout(() => this.#flush(), waitMs);
		this.#progress.notify();
	}

	/** Send after the running code: commands of one turn leave together. */
	#flushNext(): void {
		this.#wire?.socket.resume();
		if (this.#isFlushing) return;
		this.#isFlushing = true;
		queueMicrotask(() => this.#flush());
	}

	/** Send within about a millisecond: the acks of a loop become few frames. */
	#flushSoon(): void {
		if (this.#isAckTimerSet) return;
		this.#isAckTimerSet = true;
		setTimeout(() => {
			this.#isAckTimerSet = false;
			this.#flush();
		}, 0);
	}

	#onConnectionLost(): void {
		this.#wire = undefined;
		clearTimeout(this.#heldTimer);
		this.answering.onConnectionLost();
		this.outbox.onConnectionLost();
		for (const { channel, start } of this.inbox.onConnectionLost()) this.#resume(channel, start);
	}

	#resume(channel: string, start: Start): void {
		const onDone = (outcome: Outcome): void => {
			if ("reply" in outcome) {
				if (!this.inbox.onResumed(channel, outcome.reply as SubscribeReply)) this.#resume(channel, "first");
			} else if (!this.#isLeaving) {
				this.inbox.onResumeRefused(channel);
				this.log(`${channel} is not received any more: ${outcome.error.message}`);
			}
		};
		this.outbox.add("subscribe", JSON.stringify(this.#subscription(channel, start)), onDone, { channel });
		this.#flushNext();
	}

	#subscription(channel: string, start: Start): Subscribe {
		return this.#maxUnacked === null ? { channel, from: start } : { channel, from: start, max_unacked: this.#maxUnacked };
	}

	#emit(event: StateEvent): void {
		try {
			this.#options.onState(event);
		} catch (error) {
			this.log(`onState failed: ${String(error)}`);
		}
	}

	log(text: string): void {
		this.#options.log(text);
	}

	// --- calls of the program ---

	/** Resolve after the first login. Rejects with the error that prevented it. */
	async waitOpen(): Promise<void> {
		while (!this.#isOpened && this.failure === undefined && !this.#isLeaving) await this.#progress.wait();
		this.#checkOpen();
	}

	/** Send a command with this body, retry it if necessary, and return its reply. Rejects with the error that ends it. */
	command(kind: CommandKind, text: string, timeoutMs: number, options: CommandOptions & { onReply?: (reply: Reply) => void } = {}): Promise<Reply> {
		this.#checkOpen();
		return new Promise((resolve, reject) => {
			let pending: PendingCommand | undefined = undefined;
			const timer = setTimeout(() => {
				if (pending === undefined) return;
				reject(pending.timeoutError() ?? unavailable("the gateway"));
				this.cancel(pending);
			}, timeoutMs);
			const onDone = (outcome: Outcome): void => {
				clearTimeout(timer);
				if ("error" in outcome) {
					reject(outcome.error);
					return;
				}
				options.onReply?.(outcome.reply);
				resolve(outcome.reply);
			};
			pending = this.outbox.add(kind, text, onDone, { ...options, deadline: performance.now() + timeoutMs });
			options.onPending?.(pending);
			this.#flushNext();
		});
	}

	/** Stop waiting for a command. May be repeated. */
	cancel(pending: PendingCommand): void {
		this.outbox.cancel(pending);
		this.#flushNext(); // It may have held back later commands.
	}

	/** Begin the delivery of a channel at `start`. */
	async subscribe(channel: string, start: Start, timeoutMs: number): Promise<SubscribeReply> {
		const onReply = (reply: Reply): void => this.inbox.onSubscribed(channel, start, reply as SubscribeReply);
		return (await this.#sendSubscribe(channel, start, timeoutMs, onReply)) as SubscribeReply;
	}

	/** Continue a channel where it is, also if the server has ended its delivery. */
	async resubscribe(channel: string, timeoutMs: number): Promise<void> {
		const start = this.inbox.resumeStart(channel);
		if (start === "cursor") {
			await this.subscribe(channel, start, timeoutMs);
			return;
		}
		await this.#sendSubscribe(channel, start, timeoutMs, (reply) => {
			if (!this.inbox.onResumed(channel, reply as SubscribeReply)) this.#resume(channel, "first");
		});
	}

	#sendSubscribe(channel: string, start: Start, timeoutMs: number, onReply: (reply: Reply) => void): Promise<Reply> {
		const text = bodyText("subscribe", this.#subscription(channel, start), this.frameLimits);
		return this.command("subscribe", text, timeoutMs, { channel, onReply });
	}

	/** Send a command about a message of a queue. Ignore a `nak` of one that was given back already. */
	async #settle(message: Message, kind: "nak" | "extend", body: Nak | Extend): Promise<void> {
		const lost = new ArtcafeError("not_held", `this agent does not hold message ${body.seq} of ${body.channel} any more: its connection has ended`);
		const isHeld = (): boolean => message.life === this.inbox.connections;
		try {
			if (!isHeld()) throw lost;
			await this.command(kind, bodyText(kind, body, this.frameLimits), SETTLE_MS);
		} catch (error) {
			const isRefused = error instanceof ArtcafeError && (error.code === "not_held" || error.code === "not_subscribed");
			if (!isRefused || isHeld()) throw error;
			if (kind === "extend") throw lost;
		}
	}

	/** Return the next message or gap of these channels, or of all; undefined after `leave`, or when the signal aborts. */
	async item(channels: readonly string[], signal: AbortSignal | undefined): Promise<Item | undefined> {
		for (;;) {
			if (signal?.aborted) return undefined;
			if (this.failure !== undefined) throw this.failure;
			if (this.#isLeaving) return undefined;
			const found = this.inbox.take(channels);
			if (found !== undefined) {
				if (!this.inbox.isFull) this.#wire?.socket.resume();
				return found;
			}
			this.#warnIfStalled(channels);
			await this.#progress.wait(undefined, signal);
		}
	}

	#warnIfStalled(channels: readonly string[]): void {
		const seq = this.#isWarned ? undefined : this.inbox.stalled(channels);
		if (seq === undefined) return;
		this.#isWarned = true;
		this.log(`${this.#maxUnacked} messages of a channel are unacknowledged, the oldest is ${seq}, so the server sends no more of them: ack() each message after processing it`);
	}

	#checkOpen(): void {
		if (this.failure !== undefined) throw this.failure;
		if (this.#isLeaving) throw notOpen();
	}

	/** Resolve when every ack has been sent. Rejects with `unavailable` after `timeoutMs`. */
	async flush(timeoutMs: number): Promise<void> {
		await this.#until(() => !this.inbox.hasUnsentAcks(), timeoutMs);
		if (this.inbox.hasUnsentAcks()) {
			this.#checkOpen();
			throw unavailable("the gateway");
		}
	}

	/** Resolve when every command has its reply and every ack has been sent, or after `timeoutMs`. */
	async drain(timeoutMs: number): Promise<void> {
		if (this.state === "connected") await this.#until(() => this.outbox.size === 0 && !this.inbox.hasUnsentAcks(), timeoutMs);
	}

	async #until(isDone: () => boolean, timeoutMs: number): Promise<void> {
		const endsAt = performance.now() + timeoutMs;
		while (!isDone() && !this.#isLeaving && performance.now() < endsAt) await this.#progress.wait(endsAt - performance.now());
	}

	/** End the loop and close the connection. */
	leave(): void {
		this.#isLeaving = true;
		this.#wire?.socket.close(1000, "");
		this.#leaving.notify();
		this.#progress.notify();
	}
}
