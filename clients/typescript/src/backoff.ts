/** Delays between retries: "full jitter", a random time below a bound that doubles with each failure. */

const FIRST_MS = 100;
const MAX_MS = 15_000;

/** Return the longest delay after this many consecutive failures, from 1. */
export function boundMs(failures: number): number {
	return Math.min(MAX_MS, FIRST_MS * 2 ** Math.min(failures - 1, 16));
}

/** Return the delay after this many consecutive failures. */
export function delayMs(failures: number): number {
	return Math.random() * boundMs(failures);
}
