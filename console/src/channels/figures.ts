/** Figures of channels and subscriptions for lists: the rate of messages, and the subscriber that is farthest behind. */

import type { ChannelDetails, Subscription } from "../../../clients/typescript/src/generated/rest.js";

/** What was read of a channel at a time, in milliseconds. */
export interface Reading {
	at: number;
	figures: Pick<ChannelDetails, "first_seq" | "last_seq" | "messages">;
}

/**
 * Return the messages a minute between two readings; null where they are unknown. Retention removes messages, and the API has the
 * number of stored ones: what it removed is not counted, so the rate is a lower bound while the first sequence moves.
 */
export function ratePerMinute(before: Reading | undefined, now: Reading): number | null {
	if (before === undefined || now.at <= before.at) return null;
	const [was, is] = [before.figures, now.figures];
	if (was.messages == null || is.messages == null) return null;
	if (was.last_seq === is.last_seq) return 0;
	return Math.max(0, is.messages - was.messages) / ((now.at - before.at) / 60_000);
}

/** Return the subscription with the most messages above its cursor; null without any that is known to be behind. */
export function slowest(subscriptions: readonly Subscription[]): Subscription | null {
	const behind = subscriptions.filter((each) => (each.lag ?? 0) > 0);
	return behind.toSorted((a, b) => (b.lag ?? 0) - (a.lag ?? 0))[0] ?? null;
}
