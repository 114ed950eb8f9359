/** A place in a channel's history, as a person types it: a sequence, a time, or how long ago. */

export type Place = { kind: "seq"; seq: number } | { kind: "time"; time: string } | { kind: "first" } | { kind: "last" };

/** What may be typed, for the field's help and its error. */
export const SEEK_HELP = "a sequence (42), a time (14:30, 2026-11-29 14:30, 2026-11-29T13:30:00Z), an age (15m, 2h, 3d), first or last";

const AGE = /^(\d{1,6})\s*(s|m|min|h|d)(?:\s+ago)?$/;
const UNIT_S: Record<string, number> = { s: 1, m: 60, min: 60, h: 3600, d: 86_400 };
const CLOCK = /^(\d{1,2}):(\d{2})(?::(\d{2}))?$/;
const DATE = /^(\d{4})-(\d{2})-(\d{2})(?:[ T](\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?)?$/;
const WITH_ZONE = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})$/;

/**
 * Return the place, or null for text that is none. A time without a zone is a local one, or of UTC with `isUtc`, as the page
 * shows times; an hour without a date is of the day of `now`.
 */
export function parsePlace(typed: string, now: Date, isUtc: boolean): Place | null {
	const text = typed.trim();
	const word = text.toLowerCase();
	if (word === "first" || word === "last") return { kind: word };
	if (/^#?\d+$/.test(text)) return ofSeq(Number(text.replace("#", "")));
	const age = AGE.exec(word);
	if (age !== null) return ofTime(new Date(now.getTime() - Number(age[1]) * (UNIT_S[age[2] ?? ""] ?? 0) * 1000));
	if (WITH_ZONE.test(text)) return ofTime(new Date(text));
	const clock = CLOCK.exec(text);
	if (clock !== null) return ofParts([...today(now, isUtc), ...numbers(clock.slice(1))], isUtc);
	const date = DATE.exec(text);
	return date === null ? null : ofParts(numbers(date.slice(1)), isUtc);
}

/** Return the query of `readHistory` for the messages from a place on. */
export function queryFrom(place: Place): { after?: string } {
	if (place.kind === "last") return {};
	if (place.kind === "first") return { after: "0" };
	return { after: place.kind === "time" ? place.time : String(Math.max(0, place.seq - 1)) };
}

function ofSeq(seq: number): Place | null {
	return Number.isSafeInteger(seq) ? { kind: "seq", seq } : null;
}

function ofTime(time: Date): Place | null {
	return Number.isNaN(time.getTime()) || time.getUTCFullYear() < 1970 || time.getUTCFullYear() > 9999 ? null : { kind: "time", time: time.toISOString() };
}

function numbers(texts: readonly (string | undefined)[]): number[] {
	return texts.map((each) => Number(each ?? 0));
}

function today(now: Date, isUtc: boolean): number[] {
	return isUtc ? [now.getUTCFullYear(), now.getUTCMonth() + 1, now.getUTCDate()] : [now.getFullYear(), now.getMonth() + 1, now.getDate()];
}

/** Return the time of year, month, day, hour, minute and second; null if there is no such day or hour. */
function ofParts([year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0]: number[], isUtc: boolean): Place | null {
	if (month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second >= 60) return null;
	const ms = Math.round((second % 1) * 1000);
	const parts = [year, month - 1, day, hour, minute, Math.floor(second), ms] as const;
	const time = isUtc ? new Date(Date.UTC(...parts)) : new Date(...parts);
	const isSameDay = (isUtc ? time.getUTCDate() : time.getDate()) === day; // The 31st of a shorter month is none.
	return isSameDay ? ofTime(time) : null;
}
