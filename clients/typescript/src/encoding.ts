/** JSON of a program's values, checked before it is sent: the server ends a connection that sends a frame it cannot read. */

import { ArtcafeError, invalid } from "./errors.js";

const MAX_FRAME_BYTES = 65_536;
const MAX_DEPTH = 32;
/** Room in a frame for `{"id":…,"kind":…}` around the body. */
const AROUND_BYTES = 64;
const HALF_SURROGATE = /(?:^|[^\\])(?:\\\\)*\\ud[89a-f]/;

/** What the server allows, from its reply to `connect`. */
export type FrameLimits = Readonly<Record<string, number>>;

/** Return the JSON text of a value. Throws `invalid` for a value that JSON has no form for. */
export function jsonText(value: unknown, limits: FrameLimits = {}): string {
	let text: string | undefined;
	try {
		text = JSON.stringify(value, refuseNonFinite);
	} catch (error) {
		if (error instanceof ArtcafeError) throw error;
		throw invalid("data", `has no JSON form (${error instanceof Error ? error.message : String(error)})`);
	}
	if (text === undefined) throw invalid("data", `has no JSON form: it is ${typeof value}`);
	if (HALF_SURROGATE.test(text)) throw invalid("data", "has half of a surrogate pair, which is no Unicode character");
	const depth = depthOf(text);
	const most = limits["json_depth"] ?? MAX_DEPTH;
	if (depth > most) throw invalid("data", `is nested ${depth} levels deep; at most ${most} are allowed`);
	return text;
}

/**
 * Return the JSON text of a command's body; `data` is the program's value in it, in which undefined counts as null. Throws
 * `invalid`, and `too_large` for one that fits into no frame.
 */
export function bodyText(kind: string, fields: object, limits: FrameLimits, ...data: [unknown?]): string {
	const rest = jsonText(fields, limits);
	const text = data.length === 0 ? rest : `${rest.slice(0, -1)},"data":${jsonText(data[0] ?? null, limits)}}`;
	const most = limits["frame_bytes"] ?? MAX_FRAME_BYTES;
	const size = new TextEncoder().encode(text).length + AROUND_BYTES;
	if (size > most) throw new ArtcafeError("too_large", `the ${kind} takes ${size} bytes; at most ${most} are allowed`);
	return text;
}

function refuseNonFinite(_key: string, value: unknown): unknown {
	if (typeof value === "number" && !Number.isFinite(value)) throw invalid("data", `has the number ${value}, which JSON has no form for`);
	return value;
}

function depthOf(text: string): number {
	let depth = 0;
	let deepest = 0;
	let isInText = false;
	for (let at = 0; at < text.length; at += 1) {
		const char = text[at];
		if (isInText) {
			if (char === "\\") at += 1;
			else if (char === '"') isInText = false;
		} else if (char === '"') isInText = true;
		else if (char === "{" || char === "[") deepest = Math.max(deepest, ++depth);
		else if (char === "}" || char === "]") depth -= 1;
	}
	return deepest;
}
