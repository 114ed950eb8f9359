/** The objects that an agent's program handles: messages, gaps and receipts. The inbox creates them. */

import { invalid } from "./errors.js";
import type { DeadLetter, Message as PushedMessage, PublishReply, Redriven } from "./generated/frames.js";

const INBOX = "@";

/** The result of a publish: the message is on disk. */
export interface Receipt {
	/** Null in a `live` channel, and for a scheduled message until it is due. */
	readonly seq: number | null;
	/** Null only for a duplicate whose first message was removed since. */
	readonly messageId: string | null;
	/** Whether a message with this key was stored before; then nothing was stored now. */
	readonly isDuplicate: boolean;
	/** The agents that receive the channel; null if the server did not know them at that moment. */
	readonly subscribers: number | null;
	/** How many of them were connected; null if that was not known. */
	readonly connected: number | null;
}

export function receiptOf(reply: PublishReply): Receipt {
	return {
		seq: reply.seq,
		messageId: reply.message_id,
		isDuplicate: reply.duplicate,
		subscribers: reply.subscribers ?? null,
		connected: reply.connected ?? null,
	};
}

/** A range of messages of a channel that will not come: `first` to `last`, both included. */
export class Gap {
	constructor(
		/** The channel's handle, or its id as long as the handle is not known. */
		readonly channel: string,
		readonly first: number,
		/** Null if the number is unknown, for example after a restored log. */
		readonly last: number | null,
		/** `retention`, `expired` or `epoch`. */
		readonly reason: string,
	) {}

	toString(): string {
		return this.last === null
			? `the log of ${this.channel} was replaced (${this.reason}): messages of the old log from ${this.first} on will not come`
			: `messages of ${this.channel} will not come: ${this.first} to ${this.last} (${this.reason})`;
	}
}

/** What a message calls when the program acknowledges, gives back, extends or answers it. */
export interface MessageActions {
	ack(message: Message, isCumulative: boolean): void;
	/** Only for a message of a queue. */
	settle?: (message: Message, kind: "nak" | "extend", body: { channel: string; seq: number }) => Promise<void>;
	publish?: (channel: string, data: unknown, options: AnswerOptions & { causedBy: Message }) => Promise<Receipt>;
}

export interface AnswerOptions {
	key?: string;
	headers?: Readonly<Record<string, string>>;
	replyTo?: string;
	timeoutMs?: number;
}

/** A message of a channel. Acknowledge it after processing: until then it is delivered again after a restart. */
export class Message {
	#isSettled = false;
	readonly #pushed: PushedMessage;
	readonly #actions: MessageActions;
	/**
	 * The number of logs and starts of the channel so far; a sequence is valid within one of them. In a queue, the number of
	 * connections before the one that holds the message.
	 * @internal
	 */
	readonly life: number;
	/**
	 * The sequence of the previously received message of its channel; 0 for the first one.
	 * @internal
	 */
	readonly before: number;

	/** @internal */
	constructor(pushed: PushedMessage, life: number, before: number, actions: MessageActions) {
		this.#pushed = pushed;
		this.#actions = actions;
		this.life = life;
		this.before = before;
	}

	/** The channel's handle; its id if it has none. */
	get channel(): string {
		return this.#pushed.channel_handle ?? this.#pushed.channel;
	}

	get channelId(): string {
		return this.#pushed.channel;
	}

	/** Whether it was sent to this agent alone: its channel is the agent's inbox. */
	get isDirect(): boolean {
		return this.#pushed.channel.startsWith(INBOX);
	}

	/** The sequence in the channel: it rises, and may skip numbers. Null in a `live` channel. */
	get seq(): number | null {
		return this.#pushed.seq;
	}

	get messageId(): string {
		return this.#pushed.message_id;
	}

	/** The handle that the publishing agent had then; `senderId` for a person, and for an agent without a handle. */
	get sender(): string {
		return this.#pushed.from_handle ?? this.#pushed.from;
	}

	/** The authenticated publisher: an agent's id, or `usr:` and a person's. Compare this where it matters who it was. */
	get senderId(): string {
		return this.#pushed.from;
	}

	/** The time at which the server accepted it. */
	get time(): Date {
		return new Date(this.#pushed.time);
	}

	/** The data, parsed from JSON. An integer above 2^53 is rounded, as JSON.parse does. */
	get data(): unknown {
		return this.#pushed.data;
	}

	get headers(): Readonly<Record<string, string>> {
		return this.#pushed.headers ?? {};
	}

	get replyTo(): string | null {
		return this.#pushed.reply_to ?? null;
	}

	/** The id of the message that this one answers. */
	get causedBy(): string | null {
		return this.#pushed.caused_by ?? null;
	}

	/** The number of messages before this one in its chain of answers. */
	get hops(): number {
		return this.#pushed.hops ?? 0;
	}

	/** In a `queue` channel: how often the message was delivered, this time included. */
	get deliveries(): number | null {
		return this.#pushed.deliveries ?? null;
	}

	/** In a dead-letter channel: the message that this one was in its queue, and why it was moved. */
	get deadLetter(): DeadLetter | null {
		return this.#pushed.dead_letter ?? null;
	}

	/** The dead letter that this message was, if it was sent back to its queue. */
	get redriven(): Redriven | null {
		return this.#pushed.redriven ?? null;
	}

	/** The message as it was pushed, with the wire's field names. */
	toJSON(): PushedMessage {
		return this.#pushed;
	}

	/** Whether the program has acknowledged this message, or given it back. */
	get isSettled(): boolean {
		return this.#isSettled;
	}

	/**
	 * Acknowledge this message; with `cumulative`, also every earlier message of its channel. In a queue, only this message.
	 *
	 * Messages may be acknowledged in any order: the server's cursor moves up to the first unacknowledged one. Returns at once;
	 * the ack is sent together with others, and survives a lost connection. `Agent.flush` waits until it is sent.
	 */
	ack(options: { cumulative?: boolean } = {}): void {
		const isCumulative = options.cumulative ?? false;
		if (this.#isSettled && !isCumulative) return;
		this.#actions.ack(this, isCumulative);
		this.#isSettled = true;
	}

	/**
	 * Give a message of a queue back, to be delivered again after `delayMs`, or after the channel's back-off. With `dead` it
	 * moves to the queue's dead-letter channel instead. Rejects with `not_held` if its ack deadline has passed.
	 */
	async nak(options: { delayMs?: number; dead?: boolean } = {}): Promise<void> {
		const body: { channel: string; seq: number; delay_s?: number; dead?: boolean } = this.#position();
		if (options.delayMs !== undefined) body.delay_s = options.delayMs / 1000;
		if (options.dead) body.dead = true;
		await this.#settle("nak", body);
		this.#isSettled = true;
	}

	/**
	 * Let the ack deadline of a message of a queue begin again; call it regularly during long work. Rejects with `not_held` if
	 * another subscriber may get the message.
	 */
	async extend(): Promise<void> {
		await this.#settle("extend", this.#position());
	}

	/**
	 * Publish an answer to the message's `replyTo`, or to the inbox of its sender. The answer names this message as its cause.
	 * Rejects with `invalid` for a message of a person, who has no inbox, without a `replyTo`.
	 */
	async reply(data: unknown, options: AnswerOptions = {}): Promise<Receipt> {
		if (this.#actions.publish === undefined) throw new Error("this message was not received by an Agent");
		const target = this.#pushed.reply_to ?? INBOX + this.#pushed.from;
		if (target.startsWith(`${INBOX}usr:`)) throw invalid("replyTo", "the message is of a person, who has no inbox, and names no replyTo");
		return this.#actions.publish(target, data, { ...options, causedBy: this });
	}

	#position(): { channel: string; seq: number } {
		return { channel: this.channelId, seq: this.seq ?? 0 };
	}

	async #settle(kind: "nak" | "extend", body: { channel: string; seq: number }): Promise<void> {
		if (this.#actions.settle === undefined) throw new Error("only a message of a queue channel can be given back or extended");
		await this.#actions.settle(this, kind, body);
	}
}
