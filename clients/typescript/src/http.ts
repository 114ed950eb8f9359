/** Requests over fetch, and the errors in their answers. */

import { ArtcafeError, invalid, unavailable } from "./errors.js";
import type { LimitState } from "./generated/frames.js";
import type { Problem } from "./generated/rest.js";

export interface FetchOptions {
	method?: string;
	headers?: Record<string, string>;
	/** The JSON text of the body. */
	body?: string;
	timeoutMs: number;
	signal?: AbortSignal | undefined;
}

/** Return the parsed JSON of an answer; undefined if it has none. Throws the error in the answer. */
export async function fetchJson(url: string, options: FetchOptions): Promise<unknown> {
	const response = await fetchResponse(url, options);
	const text = await response.text().catch((error: unknown) => {
		throw lostAnswer(url, options.method ?? "GET", error);
	});
	if (!response.ok) throw problemOf(url, response, text);
	if (text === "") return undefined;
	try {
		return JSON.parse(text);
	} catch {
		throw invalid("url", `the answer of ${url} is not one of ArtCafe's REST API`);
	}
}

async function fetchResponse(url: string, { method = "GET", headers = {}, body, timeoutMs, signal }: FetchOptions): Promise<Response> {
	const timeout = AbortSignal.timeout(timeoutMs);
	const request: RequestInit = {
		method,
		headers: { Accept: "application/json", ...headers },
		signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
	};
	if (body !== undefined) request.body = body;
	try {
		return await fetch(url, request);
	} catch (error) {
		if (signal?.aborted) throw error;
		throw lostAnswer(url, method, error);
	}
}

/** Return the error for a request without an answer. Only a request that changes nothing has a known outcome. */
function lostAnswer(url: string, method: string, error: unknown): ArtcafeError {
	const code = codeOf(error);
	if (method === "GET" || code === "ECONNREFUSED" || code === "ENOTFOUND") return unavailable(`${url} (${code})`, error);
	const remedy = method === "POST" ? "repeat it with the same idempotencyKey" : "it may be repeated";
	return new ArtcafeError("outcome_unknown", `the outcome is unknown: ${url} sent no answer; ${remedy}`, { isTemporary: true, cause: error });
}

/** The answers that a request may not have arrived at the server, by fetch's cause. */
function codeOf(error: unknown): string {
	const cause = error instanceof Error ? error.cause : undefined;
	if (cause !== null && typeof cause === "object" && "code" in cause) return String(cause.code);
	return error instanceof Error && error.name === "TimeoutError" ? "timeout" : "no connection";
}

function problemOf(url: string, response: Response, text: string): ArtcafeError {
	const problem = parsedProblem(text);
	if (problem !== undefined) {
		const wait = Number(response.headers.get("retry-after") ?? 0);
		return new ArtcafeError(problem.code, problem.detail, {
			isTemporary: response.status === 429 || response.status === 503,
			wasDelivered: problem.delivered ?? undefined,
			agentCode: problem.agent_code ?? undefined,
			limit: (problem.limit ?? undefined) as LimitState | undefined,
			retryAfterMs: wait > 0 ? wait * 1000 : undefined,
			chain: problem.chain ?? undefined,
		});
	}
	if (response.status >= 502 && response.status <= 504) return unavailable(`${url} (a proxy answered HTTP ${response.status})`);
	return invalid("url", `${url} answered HTTP ${response.status}, but not as ArtCafe does; is it the REST address?`);
}

function parsedProblem(text: string): Problem | undefined {
	try {
		const found: unknown = JSON.parse(text);
		if (found !== null && typeof found === "object" && "code" in found && "detail" in found) return found as Problem;
	} catch {
		// An answer of a proxy is not JSON.
	}
	return undefined;
}
