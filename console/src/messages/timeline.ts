/** The messages of one channel that a page shows, in the order of the log: history and new messages, without a repeat. */

import type { ChannelMessage, MissingRange } from "./message.js";

export type Entry =
	| { kind: "message"; key: string; message: ChannelMessage }
	| { kind: "missing"; key: string; range: MissingRange }
	| { kind: "notice"; key: string; text: string };

/** More than a person reads. Older entries are dropped, this many at once; the history has them. */
export const MAX_ENTRIES = 10_000;
const DROPPED_AT_ONCE = 1_000;

/** Return the entries of a page of history, oldest first, with its gap. */
export function entriesOf(messages: readonly ChannelMessage[], gap: MissingRange | undefined): Entry[] {
	const found = messages.map(ofMessage);
	return gap === undefined ? found : [ofGap(gap), ...found];
}

let serial = 0;

/** Return a key that no other entry has: a sequence may come twice, in two logs. */
function nextKey(): string {
	serial += 1;
	return `e${serial}`;
}

/** Return the entry of a message in a list of one log. Its row keeps the focus when the list is read again. */
export function entryOf(message: ChannelMessage): Entry {
	return { kind: "message", key: `${message.seq} ${message.message_id}`, message };
}

function ofMessage(message: ChannelMessage): Entry {
	return { kind: "message", key: nextKey(), message };
}

function ofGap(range: MissingRange): Entry {
	return { kind: "missing", key: nextKey(), range };
}

export class Timeline {
	entries: Entry[] = [];
	/** How many entries were added at the end so far. */
	added = 0;
	#last = 0;

	/** The newest sequence that is shown; 0 for none. New messages follow above it. */
	get last(): number {
		return this.#last;
	}

	/** The oldest sequence that is shown; null without any. Older messages are before it. */
	get first(): number | null {
		const entry = this.entries.find((each) => each.kind === "message" && each.message.seq !== null);
		return entry?.kind === "message" ? entry.message.seq : null;
	}

	/** Begin with the newest page of the history, which is newest first. */
	open(newestFirst: readonly ChannelMessage[], gap: MissingRange | undefined): void {
		this.entries = entriesOf(newestFirst.toReversed(), gap);
		this.#last = newestFirst[0]?.seq ?? 0;
	}

	/** Add an older page of the history, which is newest first, before the shown messages. */
	prepend(newestFirst: readonly ChannelMessage[], gap: MissingRange | undefined): void {
		const first = this.first ?? Infinity;
		const older = newestFirst.filter((each) => each.seq !== null && each.seq < first).toReversed();
		this.entries = [...entriesOf(older, gap), ...this.entries];
	}

	/** Begin with the sequences of another log: this one was replaced, so those of the entries mean nothing in it. */
	renew(): void {
		this.#last = 0;
		this.note("The log was renewed: the messages below are of another log.");
	}

	/** Add a new message. Return false for one that is shown already. */
	add(message: ChannelMessage): boolean {
		if (message.seq !== null) {
			if (message.seq <= this.#last) return false;
			this.#last = message.seq;
		}
		this.#append(ofMessage(message));
		return true;
	}

	/** Add a gap, unless it is shown already. */
	addGap(range: MissingRange): void {
		if (range.to !== null && range.to <= this.#last) return;
		this.#last = Math.max(this.#last, range.to ?? range.from);
		this.#append(ofGap(range));
	}

	/** Add a notice at the end. */
	note(text: string): void {
		this.#append({ kind: "notice", key: nextKey(), text });
	}

	#append(entry: Entry): void {
		if (this.entries.length >= MAX_ENTRIES) this.entries.splice(0, DROPPED_AT_ONCE);
		this.entries.push(entry);
		this.added += 1;
	}
}
