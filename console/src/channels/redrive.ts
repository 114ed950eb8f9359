/** Sending dead letters back to their queue, request by request until all are handled. */

import type { LetterStatus, NewRedrive, Redrive } from "../../../clients/typescript/src/generated/rest.js";

export interface Progress {
	/** The letters by their sequence, with what became of them. */
	letters: ReadonlyMap<number, LetterStatus>;
	/** Whether a letter failed again, which ends a redrive until the first failure. */
	hasFailed: boolean;
}

/**
 * Send letters back. The progress is yielded after each request; the last one has all. A repeat of a whole redrive is safe: each
 * letter is sent back once.
 */
export async function* redriveAll(send: (body: NewRedrive) => Promise<Redrive>, isUntilFailure: boolean): AsyncGenerator<Progress, void, undefined> {
	const letters = new Map<number, LetterStatus>();
	let body: NewRedrive = { all: true, until_failure: isUntilFailure };
	for (;;) {
		const answer = await send(body);
		for (const { seq, status } of answer.items) letters.set(seq, status);
		yield { letters, hasFailed: [...letters.values()].includes("failed") };
		if (!answer.more) return;
		body = { all: true, until_failure: isUntilFailure, after: answer.after, up_to: answer.up_to };
	}
}

export function wordOf(status: LetterStatus): string {
	return status.replace("_", " ");
}

/** Return a sentence about a redrive: how many letters had which end. */
export function summaryOf({ letters, hasFailed }: Progress): string {
	const counts = new Map<LetterStatus, number>();
	for (const status of letters.values()) counts.set(status, (counts.get(status) ?? 0) + 1);
	const parts = [...counts].map(([status, count]) => `${count} ${wordOf(status)}`);
	if (parts.length === 0) return "No letter was left.";
	return `${parts.join(", ")}.${hasFailed ? " The redrive ended at the failure; later letters stay." : ""}`;
}
