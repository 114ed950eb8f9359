/** A conversation: the messages of one chain, over channels, as a tree of answers. */

import type { ChannelMessage } from "./message.js";

export interface ThreadRow {
	message: ChannelMessage;
	/** How many answers lead to it, as far as they are known. */
	depth: number;
	/** Whether the message that it answers was not found: it is in an inbox, was removed, or is not readable. */
	isCauseMissing: boolean;
}

/** Return whether a message belongs to the conversation `chain`, which is the id of the first message. */
export function belongsTo(message: ChannelMessage, chain: string): boolean {
	return message.message_id === chain || message.chain === chain;
}

/**
 * Return the messages as rows of a tree: each answer follows the message that it answers, earlier answers first. An answer whose
 * cause is not among the messages stands at the level that its `hops` say. Every message is one row, also if it is given twice.
 */
export function threadRows(messages: readonly ChannelMessage[]): ThreadRow[] {
	const byId = new Map(messages.map((each) => [each.message_id, each]));
	const answers = new Map<string, ChannelMessage[]>();
	const roots: ChannelMessage[] = [];
	for (const message of byId.values()) {
		const cause = message.caused_by ?? null;
		if (cause === null || cause === message.message_id || !byId.has(cause)) roots.push(message);
		else answers.set(cause, [...(answers.get(cause) ?? []), message]);
	}
	const rows: ThreadRow[] = [];
	const seen = new Set<string>();
	/** Messages still to be placed, the next one last: a long conversation would exhaust the stack of a recursion. */
	const due = inOrder(roots).reverse().map((message) => ({ message, depth: message.hops ?? 0 }));
	for (let next = due.pop(); next !== undefined; next = due.pop()) {
		const { message, depth } = next;
		if (seen.has(message.message_id)) continue;
		seen.add(message.message_id);
		rows.push({ message, depth, isCauseMissing: (message.caused_by ?? null) !== null && !byId.has(message.caused_by ?? "") });
		due.push(...inOrder(answers.get(message.message_id) ?? []).reverse().map((each) => ({ message: each, depth: depth + 1 })));
	}
	return rows;
}

/** By time, and messages of the same millisecond by their place. */
function inOrder(messages: ChannelMessage[]): ChannelMessage[] {
	return messages.toSorted((a, b) => a.time.localeCompare(b.time) || (a.seq ?? 0) - (b.seq ?? 0));
}

const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/** A message is stored after its id was made; this is the largest difference between the clocks of two servers that is allowed for. */
const CLOCK_SLACK_MS = 60_000;

/** Return the time in a message's id (the first 48 bits of its ULID), less the slack of clocks; null if the id has none. */
export function searchFrom(messageId: string): string | null {
	const digits = /^msg_([0-7][0-9A-HJKMNP-TV-Z]{9})[0-9A-HJKMNP-TV-Z]{16}$/.exec(messageId)?.[1];
	if (digits === undefined) return null;
	const ms = [...digits].reduce((sum, digit) => sum * 32 + CROCKFORD.indexOf(digit), 0);
	return new Date(Math.max(0, ms - CLOCK_SLACK_MS)).toISOString();
}

/** Return the channels in the order of the search: the message's own, then those that its `reply_to` names, then all others. */
export function searchOrder<T extends { id: string; handle: string | null }>(channels: readonly T[], likely: readonly (string | null | undefined)[]): T[] {
	const rank = (channel: T): number => {
		const place = likely.findIndex((each) => each === channel.id || (each != null && each === channel.handle));
		return place < 0 ? likely.length : place;
	};
	return channels.toSorted((a, b) => rank(a) - rank(b));
}
