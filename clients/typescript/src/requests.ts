/** Answering the requests of other agents and of people. */

import { bodyText, type FrameLimits } from "./encoding.js";
import { AgentError, ArtcafeError } from "./errors.js";
import type { CancelPush, Reply, RequestPush } from "./generated/frames.js";
import type { PushedRequests } from "./session.js";
import type { CommandKind } from "./wire-session.js";

/** The timeout of passing on one answer. */
const REPLY_MS = 30_000;
const MAX_ERROR_CHARS = 1024;

/** A request of another agent or a person. */
export interface Request {
	readonly requestId: string;
	/** The authenticated sender: an agent's id, or `usr:` and a person's. */
	readonly senderId: string;
	readonly data: unknown;
	readonly headers: Readonly<Record<string, string>>;
	/** The time from which on no answer counts, by the server's clock. */
	readonly deadline: Date | null;
	/** Aborts when the answer is not needed any more: cancelled, timed out, or the connection is lost. */
	readonly signal: AbortSignal;
}

/** Answers a request: returns the answer, a promise of it, or an async iterable of several answers. */
export type RequestHandler = (request: Request) => unknown;

/** What answering needs of the connection. */
export interface ReplyChannel {
	readonly frameLimits: FrameLimits;
	command(kind: CommandKind, text: string, timeoutMs: number): Promise<unknown>;
	log(text: string): void;
}

/** Runs the program's handler for each pushed request. */
export class Answering implements PushedRequests {
	handler: RequestHandler | undefined;
	readonly #channel: ReplyChannel;
	readonly #most: number;
	/** The requests without an answer, by id. */
	readonly #running = new Map<string, AbortController>();

	constructor(channel: ReplyChannel, most: number) {
		this.#channel = channel;
		this.#most = most;
	}

	/** How many requests the connection takes: none without a handler. */
	get maxRequests(): number {
		return this.handler === undefined ? 0 : this.#most;
	}

	onRequest(pushed: RequestPush): void {
		const controller = new AbortController();
		this.#running.set(pushed.request_id, controller);
		void this.#answer(pushed, controller.signal).finally(() => this.#running.delete(pushed.request_id));
	}

	onCancel(cancel: CancelPush): void {
		this.#running.get(cancel.request_id)?.abort(new ArtcafeError("cancelled", `the request needs no answer any more (${cancel.reason})`));
	}

	onConnectionLost(): void {
		for (const controller of this.#running.values()) controller.abort(new ArtcafeError("request_lost", "the connection of the request is lost"));
		this.#running.clear();
	}

	/** Answer one request. A failure becomes an answer or a log line: it must not end the agent. */
	async #answer(pushed: RequestPush, signal: AbortSignal): Promise<void> {
		try {
			await this.#run(pushed, signal);
		} catch (error) {
			if (signal.aborted || (error instanceof ArtcafeError && error.code === "not_pending")) return; // The answer came too late.
			if (!(error instanceof AgentError)) this.#channel.log(`the handler of requests failed: ${String(error)}`);
			const [code, message] = error instanceof AgentError ? [error.agentCode, error.message] : ["failed", "the agent failed to answer"];
			const fault = { code: code ?? "failed", message: message.slice(0, MAX_ERROR_CHARS) };
			await this.#send({ request_id: pushed.request_id, error: fault }).catch(() => {}); // The asker is told by the deadline.
		}
	}

	async #run(pushed: RequestPush, signal: AbortSignal): Promise<void> {
		if (this.handler === undefined) throw new AgentError("no_handler", "this connection of the agent answers no requests");
		const id = pushed.request_id;
		const answer: unknown = await this.handler({
			requestId: id,
			senderId: pushed.from,
			data: pushed.data ?? null,
			headers: pushed.headers ?? {},
			deadline: pushed.deadline == null ? null : new Date(pushed.deadline),
			signal,
		});
		if (!isAsyncIterable(answer)) {
			if (!signal.aborted) await this.#send({ request_id: id }, answer);
			return;
		}
		for await (const each of answer) {
			signal.throwIfAborted();
			await this.#send({ request_id: id, more: true }, each);
		}
		if (!signal.aborted) await this.#send({ request_id: id });
	}

	async #send(reply: Reply, ...data: [unknown?]): Promise<void> {
		await this.#channel.command("reply", bodyText("reply", reply, this.#channel.frameLimits, ...data), REPLY_MS);
	}
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
	return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
}
