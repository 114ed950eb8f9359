/** The meaning of close codes. */

import { ArtcafeError, ConnectionLost, unavailable } from "./errors.js";
import { CLOSE_ERRORS } from "./generated/frames.js";

/** From this code on, a client reconnects only after the cause was fixed. */
const FIRST_FATAL = 4500;
/** Codes of RFC 6455, section 7.4.1, for a disagreement about the protocol: a new connection would end alike. */
const PROTOCOL_ERRORS: ReadonlySet<number> = new Set([1002, 1003, 1007, 1009, 1010]);
/** The error of a code that several errors share, if the server has not pushed one. */
const DEFAULTS: ReadonlyMap<number, string> = new Map([
	[4000, "shutting_down"],
	[4001, "credentials_expired"],
	[4500, "bad_credentials"],
	[4501, "bad_frame"],
	[4503, "revoked"],
]);

/** Return whether a new connection can succeed after this close code. */
export function shouldReconnect(code: number): boolean {
	return !PROTOCOL_ERRORS.has(code) && !(code >= FIRST_FATAL && code <= 4999);
}

/** Return the close code with which the server follows up an error, or undefined if it keeps the connection. */
export function closeCodeOf(errorCode: string): number | undefined {
	for (const [close, codes] of CLOSE_ERRORS) if (codes.includes(errorCode)) return close;
	return undefined;
}

/** Return the meaning of a close frame. `lastError` is the last error that the server pushed. */
export function lostByClose(code: number, reason: string, lastError: ArtcafeError | undefined): ConnectionLost {
	const known = CLOSE_ERRORS.get(code);
	const canReturn = shouldReconnect(code);
	if (lastError !== undefined && known?.includes(lastError.code)) return new ConnectionLost(lastError, canReturn);
	const because = reason === "" ? "" : `: ${reason}`;
	const errorCode = known === undefined ? undefined : (DEFAULTS.get(code) ?? known[0]);
	if (errorCode !== undefined) {
		return new ConnectionLost(new ArtcafeError(errorCode, reason === "" ? `the gateway closed with ${code}` : reason, { isTemporary: canReturn }), canReturn);
	}
	if ((code >= 4000 && code <= 4999) || PROTOCOL_ERRORS.has(code)) {
		return new ConnectionLost(new ArtcafeError("unknown", `the gateway closed the connection with ${code}${because}`), canReturn);
	}
	return new ConnectionLost(unavailable(`the gateway (it closed with ${code}${because})`), canReturn);
}
