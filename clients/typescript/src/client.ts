/** The REST client: a method for each operation of /openapi.json, and the login of an agent. */

import { restAddress } from "./addresses.js";
import { checkChallenge } from "./challenge.js";
import { jsonText } from "./encoding.js";
import { ArtcafeError } from "./errors.js";
import { Operations } from "./generated/rest.js";
import { fetchJson } from "./http.js";
import type { RequestParts } from "./request-parts.js";
import type { Signer } from "./signer.js";

const NO_LIMIT = { json_depth: Infinity };

export interface ClientOptions {
	/** The REST address, such as `https://artcafe.example.com`. */
	url: string;
	/** The access token, or a function that returns a valid one; it is called again when the server says that one has expired. */
	token?: string | (() => string | Promise<string>);
	timeoutMs?: number;
	/** A request refused by a rate limit is repeated while the waits that the server asks for are at most this long together. */
	maxRateWaitMs?: number;
}

/**
 * A person's or an agent's REST client. Its methods throw `ArtcafeError`. A refused request (429) is repeated, since the server
 * has done nothing; a request without an answer is not, and throws `outcome_unknown`.
 */
export class Client extends Operations {
	readonly #url: string;
	readonly #token: ClientOptions["token"];
	readonly #timeoutMs: number;
	readonly #maxRateWaitMs: number;
	#current: Promise<string> | undefined;

	constructor({ url, token, timeoutMs = 30_000, maxRateWaitMs = 60_000 }: ClientOptions) {
		super();
		this.#url = restAddress(url);
		this.#token = token;
		this.#timeoutMs = timeoutMs;
		this.#maxRateWaitMs = maxRateWaitMs;
	}

	/** Yield the items of all pages: `client.all((cursor) => client.listAgents(tenant, { cursor }))`. */
	async *all<T>(read: (cursor: string | null) => Promise<{ items: T[]; next_cursor: string | null }>): AsyncGenerator<T, void, undefined> {
		let cursor: string | null = null;
		do {
			const page: { items: T[]; next_cursor: string | null } = await read(cursor);
			yield* page.items;
			cursor = page.next_cursor;
		} while (cursor !== null);
	}

	override async send(method: string, path: string, parts: RequestParts): Promise<unknown> {
		let leftMs = this.#maxRateWaitMs;
		let isRenewed = false;
		for (;;) {
			const token = await this.#validToken();
			try {
				return await this.#sendOnce(method, path, parts, token);
			} catch (error) {
				const waitMs = error instanceof ArtcafeError && error.code === "too_fast" ? (error.retryAfterMs ?? 0) : 0;
				if (error instanceof ArtcafeError && error.code === "credentials_expired" && typeof this.#token === "function" && !isRenewed) {
					isRenewed = true;
					this.#current = undefined;
				} else if (waitMs > 0 && waitMs <= leftMs) {
					leftMs -= waitMs;
					await new Promise((resolve) => setTimeout(resolve, waitMs));
				} else throw error;
			}
		}
	}

	async #sendOnce(method: string, path: string, { body, query = {}, options = {} }: RequestParts, token: string | undefined): Promise<unknown> {
		const headers: Record<string, string> = {};
		if (token !== undefined) headers["Authorization"] = `Bearer ${token}`;
		if (body !== undefined) headers["Content-Type"] = "application/json";
		if (options.idempotencyKey !== undefined) headers["Idempotency-Key"] = options.idempotencyKey;
		const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
		const search = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
		const content = body === undefined ? {} : { body: jsonText(body, NO_LIMIT) };
		const waitS = typeof query["wait_s"] === "number" ? query["wait_s"] : 0;
		return fetchJson(`${this.#url}${path}${search === "" ? "" : `?${search}`}`, {
			method,
			headers,
			timeoutMs: this.#timeoutMs + waitS * 1000,
			signal: options.signal,
			...content,
		});
	}

	async #validToken(): Promise<string | undefined> {
		if (typeof this.#token !== "function") return this.#token;
		const token = this.#token;
		this.#current ??= (async () => token())();
		try {
			return await this.#current;
		} catch (error) {
			this.#current = undefined;
			throw error;
		}
	}
}

export interface AgentTokenOptions {
	/** The REST address. */
	url: string;
	tenant: string;
	agent: string;
	signer: Signer;
	/** The only service to sign challenges of, as `Agent.service` names it. */
	service?: string;
}

/**
 * Return a function that logs an agent in over REST and returns its access token, valid for 15 minutes. It logs in at each call:
 * for the `token` of a `Client`, or on a server that gives a page the token of its agent.
 */
export function agentToken({ url, tenant, agent, signer, service }: AgentTokenOptions): () => Promise<string> {
	const client = new Client({ url });
	return async () => {
		const { challenge, challenge_id } = await client.createChallenge({ tenant_id: tenant, agent_id: agent });
		checkChallenge(challenge, { tenant, agent, challenge: challenge_id, service });
		const { access_token } = await client.createToken({ challenge_id, signature: await signer.sign(challenge) });
		return access_token;
	};
}
