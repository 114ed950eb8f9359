/** Numbers of usage and limits as text. */

import type { Every } from "./series.js";

const NUMBER = new Intl.NumberFormat();
const ROUNDED = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function formatCount(value: number): string {
	return NUMBER.format(value);
}

export function formatBytes(value: number): string {
	let rest = value;
	let unit = 0;
	while (rest >= 1024 && unit < UNITS.length - 1) {
		rest /= 1024;
		unit += 1;
	}
	return `${ROUNDED.format(rest)} ${UNITS[unit]}`;
}

const SPANS: readonly (readonly [string, number])[] = [["days", 86_400], ["hours", 3600], ["minutes", 60], ["seconds", 1]];

export function formatSeconds(value: number): string {
	const [unit, length] = SPANS.find(([, each]) => value >= each) ?? ["seconds", 1];
	return `${ROUNDED.format(value / length)} ${unit}`;
}

/** Return a limit's number with its unit, which its name ends with. */
export function formatLimit(name: string, value: number): string {
	if (name.endsWith("_bytes")) return formatBytes(value);
	return name.endsWith("_s") ? formatSeconds(value) : formatCount(value);
}

const HOUR = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" });

/** Return the beginning of an hour in the person's zone, or a day, which is one of UTC. */
export function formatStep(seconds: number, every: Every): string {
	return (every === "hour" ? HOUR : DAY).format(seconds * 1000);
}
