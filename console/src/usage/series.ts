/** Usage as series for plots: the rows of days or hours of UTC, with a hole where nothing was counted. */

import type { Metric, UsageItem } from "../../../clients/typescript/src/generated/rest.js";

export type Every = "hour" | "day";

export interface Span {
	title: string;
	every: Every;
	/** How many hours or days, with the current one. */
	count: number;
}

export const SPANS: readonly Span[] = [
	{ title: "24 hours", every: "hour", count: 24 },
	{ title: "7 days", every: "hour", count: 168 },
	{ title: "30 days", every: "day", count: 30 },
	{ title: "1 year", every: "day", count: 365 },
];

const STEP_S: Record<Every, number> = { hour: 3600, day: 86_400 };

/** Return the days (of hours) or months (of days) to ask for, oldest first. */
export function periodsOf(span: Span, now: Date): string[] {
	const length = span.every === "hour" ? 10 : 7; // 2026-11-28, or 2026-11
	return [...new Set(stepsOf(span, now).map((each) => new Date(each * 1000).toISOString().slice(0, length)))];
}

/** Return the beginnings of the hours or days of a span, in seconds, oldest first. */
export function stepsOf(span: Span, now: Date): number[] {
	const step = STEP_S[span.every];
	const last = Math.floor(now.getTime() / 1000 / step) * step;
	return Array.from({ length: span.count }, (_, index) => last - (span.count - 1 - index) * step);
}

/** Return a metric's value for each step; null where nothing was counted or is kept. */
export function valuesOf(items: readonly UsageItem[], metric: Metric, steps: readonly number[]): (number | null)[] {
	const values = new Map(items.filter((each) => each.name === metric).map((each) => [beginningOf(each.period), each.value]));
	return steps.map((each) => values.get(each) ?? null);
}

/** Return the beginning of a period such as `2026-11`, `2026-11-28` or `2026-11-28T10`, in seconds. */
export function beginningOf(period: string): number {
	const [year = 0, month = 1, day = 1, hour = 0] = period.split(/[-T]/).map(Number);
	return Date.UTC(year, month - 1, day, hour) / 1000;
}

/** Return the sum of what was counted; null if nothing was. */
export function totalOf(values: readonly (number | null)[]): number | null {
	const counted = values.filter((each) => each !== null);
	return counted.length === 0 ? null : counted.reduce((sum, each) => sum + each, 0);
}
