/** The progress of one channel: on this connection, and for the program. */

import { Acked } from "./acked.js";
import type { Gap, Message } from "./messages.js";

/** Ids kept for each channel, to distinguish a repeat from another message with the same sequence. */
const MAX_RECENT_IDS = 256;

export class ChannelState {
	/** Messages up to this sequence were received or will never come; a repeat of them is ignored. */
	received = 0;
	/** The sequence of the last received message, or the start of the channel. */
	newest = 0;
	readonly acked = new Acked();
	/** The last sequence of the current delivery: the server refuses an ack above it. */
	onSocket = 0;
	/** The highest ack of the current delivery. */
	ackSent = 0;
	/** The highest ack ever sent. If it was lost with its connection, the server sends its message again. */
	written = 0;
	/** The number of logs and starts so far; a sequence is meaningful within one of them. */
	life = 0;
	epoch: string | null = null;
	/** How often requests have moved the subscription's cursor, as far as the server has reported. */
	moves = 0;
	/** The cursor of a channel that did not begin at its stored cursor: a new connection must subscribe to it explicitly. */
	resumeFrom: number | null = null;
	/** Whether that `subscribe` has no reply yet. Until then messages come from the stored cursor, and are ignored. */
	isResuming = false;
	/** Whether the new connection reported another log for the stored cursor. */
	isElsewhere = false;
	/** The newest gap and the epoch of its log: the server repeats it until a later message is acknowledged. */
	gap: { gap: Gap; epoch: string | null } | null = null;
	/** The first sequence that the current delivery has repeated. */
	repeatsFrom: number | null = null;
	handle: string | null = null;
	waiting: { arrival: number; item: Message | Gap }[] = [];
	unacked: number[] = [];
	#recent: { seq: number; messageId: string }[] = [];

	/** Return whether the program got this gap before. Older servers push no epoch; then equal gaps count as the same. */
	hasSeen(gap: Gap, epoch: string | null): boolean {
		const seen = this.gap;
		if (seen === null || seen.gap.first !== gap.first || seen.gap.last !== gap.last || seen.gap.reason !== gap.reason) return false;
		return epoch === null || seen.epoch === null || epoch === seen.epoch;
	}

	/** Record that the server has sent `seq`. A delivery that begins again repeats messages, and their acks are due again. */
	arrive(seq: number): void {
		this.onSocket = seq;
		this.ackSent = Math.min(this.ackSent, seq - 1);
	}

	/** Record that the server has begun a delivery on this connection: acks count from `cursor`. */
	deliverAfter(cursor: number): void {
		this.onSocket = cursor;
		this.ackSent = cursor;
		this.repeatsFrom = null;
	}

	/**
	 * Return whether a sequence received before has the same message again, as far as the kept ids can decide. A log whose files
	 * were restored assigns its sequences again in the same epoch.
	 */
	isRepeat(seq: number, messageId: string): boolean {
		this.repeatsFrom = this.repeatsFrom === null ? seq : Math.min(this.repeatsFrom, seq);
		const oldest = this.#recent[0];
		if (oldest === undefined || seq < oldest.seq) return true;
		const known = this.#recent.filter((each) => each.seq === seq);
		return known.length === 0 || known.some((each) => each.messageId === messageId);
	}

	/** Record a new message. */
	add(seq: number, messageId: string): void {
		this.received = seq;
		this.newest = seq;
		this.#recent.push({ seq, messageId });
		if (this.#recent.length > MAX_RECENT_IDS) this.#recent.shift();
	}

	/** Continue at `cursor` in another log, or at another position of this one: earlier sequences lose their meaning. */
	restart(cursor: number): void {
		this.life += 1;
		this.received = cursor;
		this.newest = cursor;
		this.written = cursor;
		if (this.resumeFrom !== null) this.resumeFrom = cursor;
		this.acked.reset(cursor);
		this.deliverAfter(cursor);
		this.unacked = [];
		this.#recent = [];
	}
}
