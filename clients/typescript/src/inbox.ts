/**
 * Received and acknowledged messages of all channels, over any number of connections: no message is yielded twice.
 *
 * Frames in, acks out, without I/O. `connection.ts` moves the bytes.
 */

import { ChannelState } from "./channel-state.js";
import type { Ack, Gap as PushedGap, GapPush, Message as PushedMessage, MovedPush, Subscribe, SubscribeReply } from "./generated/frames.js";
import { Gap, Message, type MessageActions } from "./messages.js";

/** Messages buffered for the program before the socket is left unread, when no `maxUnacked` makes the server wait. */
export const MAX_BUFFERED = 1024;
/** The reason of a gap without an end: the log was restored from a backup, or begun anew. */
const OTHER_LOG = "epoch";

export type Start = NonNullable<Subscribe["from"]>;
export type Item = Message | Gap;

export class Inbox {
	/** The number of lost connections: the messages of queues that they held were given back. */
	connections = 0;
	/** Called with each new gap. */
	onGap: (gap: Gap) => void = () => {};
	/** Called after an ack was recorded, since `acks` may then have something to send. */
	onAck: () => void = () => {};
	settle: MessageActions["settle"];
	publish: MessageActions["publish"];
	readonly #maxUnacked: number | null;
	readonly #channels = new Map<string, ChannelState>();
	/** The ids of channels by the handles in their pushes, and by those that the program uses. */
	readonly #ids = new Map<string, string>();
	readonly #toAck = new Set<string>();
	/** Acks of messages of queues to be sent on this connection. */
	#heldAcks: Ack[] = [];
	#arrivals = 0;
	#buffered = 0;

	/** `maxUnacked` is the window that the server was given, or null. */
	constructor(maxUnacked: number | null) {
		this.#maxUnacked = maxUnacked;
	}

	/** Whether the socket should be left unread. Never with a window: the server then waits by itself. */
	get isFull(): boolean {
		return this.#maxUnacked === null && this.#buffered >= MAX_BUFFERED;
	}

	// --- events of the connection ---

	/** Buffer a new message; ignore a repeat. */
	onMessage(pushed: PushedMessage): void {
		const state = this.#channel(pushed.channel);
		const handle = pushed.channel_handle ?? null;
		if (handle !== state.handle) this.#learn(pushed.channel, handle);
		if (pushed.seq === null) {
			// A `live` channel delivers at most once: messages beyond the buffer are dropped.
			if (this.#buffered < MAX_BUFFERED) this.#buffer(state, this.#message(pushed, state.life, 0));
		} else if (pushed.deliveries != null) {
			this.#buffer(state, this.#heldMessage(pushed));
		} else if (!state.isResuming) {
			this.#onStored(state, pushed, pushed.seq);
		}
	}

	#onStored(state: ChannelState, pushed: PushedMessage, seq: number): void {
		state.arrive(seq);
		if (seq <= state.received) {
			if (state.isRepeat(seq, pushed.message_id)) {
				this.#toAck.add(pushed.channel); // If it was acknowledged, the server has not received that ack.
				return;
			}
			this.#report(state, new Gap(state.handle ?? pushed.channel, state.repeatsFrom ?? seq, null, OTHER_LOG));
			state.restart(seq - 1);
			state.arrive(seq);
		}
		if (this.#maxUnacked !== null) state.unacked.push(seq);
		this.#buffer(state, this.#message(pushed, state.life, state.newest));
		state.add(seq, pushed.message_id);
	}

	/** Report a new gap, and buffer it for loops that yield gaps. `epoch` names the log if it is another one. */
	onGapFrame(channel: string, pushed: PushedGap | GapPush, epoch: string | null = null): void {
		const state = this.#channel(channel);
		const last = pushed.to ?? null;
		if (state.isResuming) {
			state.isElsewhere ||= last === null;
			return;
		}
		const gap = new Gap(state.handle ?? channel, pushed.from, last, pushed.reason);
		if (state.hasSeen(gap, epoch) || (last !== null && last <= state.received)) return;
		state.gap = { gap, epoch };
		if (last === null) state.restart(0);
		else state.received = last;
		this.#report(state, gap);
	}

	/** Continue at a cursor that a request has set. Drop the channel's buffered messages: those above it come again. */
	onMoved(pushed: MovedPush): void {
		const state = this.#channel(pushed.channel);
		if (pushed.moves <= state.moves) return;
		state.moves = pushed.moves;
		if (state.isResuming) return; // The program has chosen another position for this connection.
		state.epoch = state.epoch === null ? null : pushed.epoch;
		state.restart(pushed.cursor);
		this.#drop(state, () => true);
	}

	/**
	 * Apply the reply to a `subscribe` of the program: the server has ended the previous delivery and begun another. The program
	 * may use the channel's id or handle; the reply has the id.
	 */
	onSubscribed(channel: string, start: Start, reply: SubscribeReply): void {
		if (reply.channel != null && channel !== reply.channel) this.#learn(reply.channel, channel);
		const state = this.#channel(channel);
		state.isResuming = false;
		state.epoch = reply.epoch;
		if (reply.cursor === null) return;
		if (start === "cursor" && state.resumeFrom === null) {
			state.deliverAfter(reply.cursor);
			if (reply.gap != null) this.onGapFrame(channel, reply.gap, epochOfGap(reply));
			return;
		}
		state.resumeFrom = start === "cursor" ? null : reply.cursor;
		state.restart(reply.cursor);
		this.#drop(state, () => true);
		// The server pushed this gap too, but before this reply gave its position.
		if (reply.gap != null) this.#buffer(state, new Gap(state.handle ?? channel, reply.gap.from, reply.gap.to ?? null, reply.gap.reason));
	}

	/**
	 * Return the start of a `subscribe` that continues the channel where it is. The reply goes to `onSubscribed` if the start is
	 * the cursor, else to `onResumed`.
	 */
	resumeStart(channel: string): Start {
		const state = this.#channels.get(this.#idOf(channel));
		return state === undefined || state.resumeFrom === null ? "cursor" : this.#resumeAfter(state) + 1;
	}

	/**
	 * Apply the reply to a `subscribe` that continues a channel, on a new connection or for a new loop. Return false if the
	 * channel's position was in another log: subscribe again, from the first message of this log.
	 */
	onResumed(channel: string, reply: SubscribeReply): boolean {
		const state = this.#channel(channel);
		// A log that began after the channel was subscribed to has an epoch that this client has not received yet.
		const isOther = state.epoch === null ? state.isElsewhere : reply.epoch !== state.epoch;
		state.isElsewhere = false;
		if (isOther) {
			this.#report(state, new Gap(state.handle ?? channel, state.received + 1, null, OTHER_LOG));
			state.restart(0);
			state.epoch = reply.epoch;
			return false;
		}
		state.isResuming = false;
		state.epoch = reply.epoch;
		if (reply.cursor !== null) state.deliverAfter(reply.cursor);
		if (reply.gap != null) this.onGapFrame(channel, reply.gap, epochOfGap(reply));
		return true;
	}

	/** Apply a refusal to continue a channel: it continues from its stored cursor, if at all. */
	onResumeRefused(channel: string): void {
		const state = this.#channel(channel);
		state.isResuming = false;
		state.resumeFrom = null;
		if (!state.isElsewhere) return;
		state.isElsewhere = false;
		this.#report(state, new Gap(state.handle ?? channel, state.received + 1, null, OTHER_LOG));
		state.restart(0);
	}

	/**
	 * Return the channels to subscribe to on the next connection, with their starts; `onResumed` is due for each. The other
	 * channels continue from their cursors by themselves.
	 */
	onConnectionLost(): { channel: string; start: number }[] {
		this.#toAck.clear();
		this.#heldAcks = [];
		this.connections += 1;
		const found: { channel: string; start: number }[] = [];
		for (const [channel, state] of this.#channels) {
			// The lost connection held the buffered messages of queues, so the server delivers them again.
			this.#drop(state, (item) => item instanceof Message && item.deliveries !== null);
			state.deliverAfter(0);
			if (state.resumeFrom !== null && !state.isResuming) {
				state.isResuming = true;
				found.push({ channel, start: this.#resumeAfter(state) + 1 });
			}
		}
		return found;
	}

	/**
	 * Return the sequence after which to resume: unacknowledged messages must be sent again, though the program does not get them
	 * twice, because a connection can acknowledge only what it was sent. A program without a window that has acknowledged nothing
	 * counts as one that never acknowledges.
	 */
	#resumeAfter(state: ChannelState): number {
		return this.#maxUnacked === null && state.acked.through === state.resumeFrom ? state.received : state.acked.through;
	}

	#idOf(channel: string): string {
		return this.#ids.get(channel) ?? channel;
	}

	#channel(channel: string): ChannelState {
		const id = this.#idOf(channel);
		let state = this.#channels.get(id);
		if (state === undefined) {
			state = new ChannelState();
			this.#channels.set(id, state);
			if (id.startsWith("@")) this.#ids.set("@", id); // Of this agent: it gets no other.
		}
		return state;
	}

	#learn(id: string, handle: string | null): void {
		this.#channel(id).handle = handle;
		if (handle !== null) this.#ids.set(handle, id);
	}

	#report(state: ChannelState, gap: Gap): void {
		this.onGap(gap);
		this.#buffer(state, gap);
	}

	#buffer(state: ChannelState, item: Item): void {
		this.#arrivals += 1;
		this.#buffered += 1;
		state.waiting.push({ arrival: this.#arrivals, item });
	}

	#drop(state: ChannelState, isDropped: (item: Item) => boolean): void {
		const kept = state.waiting.filter(({ item }) => !isDropped(item));
		this.#buffered -= state.waiting.length - kept.length;
		state.waiting = kept;
	}

	#message(pushed: PushedMessage, life: number, before: number): Message {
		return new Message(pushed, life, before, { ack: (message, isCumulative) => this.#ack(message, isCumulative), ...this.#publishing() });
	}

	#heldMessage(pushed: PushedMessage): Message {
		const settling = this.settle === undefined ? {} : { settle: this.settle };
		return new Message(pushed, this.connections, 0, { ack: (message) => this.#ackHeld(message), ...settling, ...this.#publishing() });
	}

	#publishing(): Pick<MessageActions, "publish"> {
		return this.publish === undefined ? {} : { publish: this.publish };
	}

	// --- calls of the program ---

	/** Remove and return the oldest buffered item of these channels, or of all. */
	take(channels: readonly string[]): Item | undefined {
		let oldest: ChannelState | undefined;
		for (const state of this.#chosen(channels)) {
			const first = state.waiting[0];
			if (first !== undefined && (oldest === undefined || first.arrival < (oldest.waiting[0]?.arrival ?? Infinity))) oldest = state;
		}
		const found = oldest?.waiting.shift();
		if (found !== undefined) this.#buffered -= 1;
		return found?.item;
	}

	/** Return the oldest unacknowledged sequence of a channel with a full window, of these channels or of all. */
	stalled(channels: readonly string[]): number | undefined {
		return this.#chosen(channels).find((state) => state.unacked.length === this.#maxUnacked)?.unacked[0];
	}

	#chosen(channels: readonly string[]): ChannelState[] {
		if (channels.length === 0) return [...this.#channels.values()];
		return channels.flatMap((channel) => this.#channels.get(this.#idOf(channel)) ?? []);
	}

	#ack(message: Message, isCumulative: boolean): void {
		const state = this.#channel(message.channelId);
		if (message.seq === null || message.life !== state.life) return;
		if (isCumulative) state.acked.addAll(message.seq);
		else state.acked.add(message.before, message.seq);
		while ((state.unacked[0] ?? Infinity) <= state.acked.through) state.unacked.shift();
		this.#toAck.add(message.channelId);
		this.onAck();
	}

	/** Acknowledge one message of a queue, unless its connection has ended: it was given back then. */
	#ackHeld(message: Message): void {
		if (message.life !== this.connections || message.seq === null) return;
		this.#heldAcks.push({ channel: message.channelId, seq: message.seq });
		this.onAck();
	}

	/** Return whether an ack that may be sent never was. */
	hasUnsentAcks(): boolean {
		return this.#heldAcks.length > 0 || [...this.#channels.values()].some((state) => state.acked.through > state.written);
	}

	/**
	 * Return the acks to send, at most one for each channel but queues, and count them as sent. Channels in `subscribing` have a
	 * `subscribe` in flight: the server refuses their acks while it restarts the delivery.
	 */
	acks(subscribing: readonly string[]): Ack[] {
		const held = new Set(subscribing.map((channel) => this.#idOf(channel)));
		const found = this.#heldAcks;
		this.#heldAcks = [];
		for (const channel of [...this.#toAck].filter((each) => !held.has(each))) {
			this.#toAck.delete(channel);
			const state = this.#channel(channel);
			const seq = Math.min(state.acked.through, state.onSocket);
			if (seq <= state.ackSent) continue;
			state.ackSent = seq;
			state.written = Math.max(state.written, seq);
			found.push({ channel, seq });
		}
		return found;
	}
}

/** Return the epoch with which the server pushes the gap of this reply. */
function epochOfGap(reply: SubscribeReply): string | null {
	return reply.gap != null && (reply.gap.to ?? null) === null ? reply.epoch : null;
}
