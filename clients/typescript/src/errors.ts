/** The errors of the SDK. `code` identifies them; docs/errors.md of ArtCafe lists every code. */

import type { ErrorBody, LimitState } from "./generated/frames.js";

/** Facts about an error besides its code and text. */
export interface ErrorDetails {
	/** Whether the same command can succeed later. */
	isTemporary?: boolean;
	/** Of a request: whether the agent was sent it. Undefined if that is unknown. */
	wasDelivered?: boolean | undefined;
	/** Of `agent_error`: the code that the agent chose. */
	agentCode?: string | undefined;
	/** The limit that refused the command. */
	limit?: LimitState | undefined;
	/** Of a rate limit: how long to wait before the next attempt. */
	retryAfterMs?: number | undefined;
	/** Of `loop_stopped`: the id of the chain of answers. */
	chain?: string | undefined;
	cause?: unknown;
}

/** An error of ArtCafe, of the server or of this SDK. */
export class ArtcafeError extends Error {
	override readonly name: string = "ArtcafeError";
	readonly isTemporary: boolean;
	readonly wasDelivered: boolean | undefined;
	readonly agentCode: string | undefined;
	readonly limit: LimitState | undefined;
	readonly retryAfterMs: number | undefined;
	readonly chain: string | undefined;

	constructor(
		readonly code: string,
		message: string,
		details: ErrorDetails = {},
	) {
		super(message, details.cause === undefined ? undefined : { cause: details.cause });
		this.isTemporary = details.isTemporary ?? false;
		this.wasDelivered = details.wasDelivered;
		this.agentCode = details.agentCode;
		this.limit = details.limit;
		this.retryAfterMs = details.retryAfterMs;
		this.chain = details.chain;
	}
}

/** Thrown by a handler of requests to answer with an error of its own. */
export class AgentError extends ArtcafeError {
	override readonly name = "AgentError";

	constructor(agentCode: string, message: string) {
		super("agent_error", message, { agentCode });
	}
}

/** A connection that ended or could not be opened. */
export class ConnectionLost extends Error {
	override readonly name = "ConnectionLost";

	constructor(
		readonly error: ArtcafeError,
		readonly shouldReconnect: boolean,
	) {
		super(error.message);
	}
}

export function invalid(field: string, problem: string): ArtcafeError {
	return new ArtcafeError("invalid", `${field}: ${problem}`);
}

export function unavailable(what: string, cause?: unknown): ArtcafeError {
	return new ArtcafeError("unavailable", `${what} is not available; try again later`, { isTemporary: true, cause });
}

export function badFrame(problem: string): ArtcafeError {
	return new ArtcafeError("bad_frame", `the server sent a frame that cannot be handled: ${problem}`);
}

export function keyUnusable(problem: string, cause?: unknown): ArtcafeError {
	return new ArtcafeError("key_unusable", problem, { cause });
}

/** The error of a call on an agent that was not started, or is closed. */
export function notOpen(): Error {
	return new Error("this Agent is not open: await start() first, and do not use it after close()");
}

/** Return the error in a frame of the server. */
export function errorOf(body: ErrorBody): ArtcafeError {
	return new ArtcafeError(body.code, body.message, {
		isTemporary: body.temporary,
		wasDelivered: body.delivered ?? undefined,
		agentCode: body.agent_code ?? undefined,
		limit: body.limit ?? undefined,
		retryAfterMs: body.retry_after_s == null ? undefined : body.retry_after_s * 1000,
		chain: body.chain ?? undefined,
	});
}
