/** The agent's half of one connection, without I/O: the login, and the frames in both directions. */

import { checkChallenge } from "./challenge.js";
import { closeCodeOf, shouldReconnect } from "./close-codes.js";
import { jsonText, type FrameLimits } from "./encoding.js";
import { ArtcafeError, ConnectionLost, errorOf } from "./errors.js";
import type { CancelPush, ChallengeReply, Connect, ErrorBody, LimitsPush, LimitState, RequestPush } from "./generated/frames.js";
import type { Inbox } from "./inbox.js";
import type { Outbox, Reply } from "./outbox.js";
import { ClientSession } from "./wire-session.js";

const CHALLENGE_ID = 0;
const CONNECT_ID = 1;
const MAX_LISTED_CHANNELS = 10;

/** The handler of the requests that the server pushes. */
export interface PushedRequests {
	readonly maxRequests: number;
	onRequest(request: RequestPush): void;
	onCancel(cancel: CancelPush): void;
	/** Stop answering: a new connection cannot answer the requests of an older one. */
	onConnectionLost(): void;
}

/** What a session needs of the agent, whose state outlives a connection. */
export interface SessionParts {
	tenant: string | undefined;
	agent: string | undefined;
	maxUnacked: number | null;
	takesQueues: boolean;
	/** The only service to sign challenges of. */
	service: string | undefined;
	/** Whether an expired token can be replaced by a fresh one. */
	hasFreshTokens: boolean;
	inbox: Inbox;
	outbox: Outbox;
	answering: PushedRequests;
	/** The last known state of the tenant's limits, by name. */
	limits: Map<string, LimitState | LimitsPush>;
	log: (text: string) => void;
}

export class Session {
	/** What the server allows: sizes and depths of frames. */
	frameLimits: FrameLimits = {};
	/** The seconds between the server's pings. */
	pingS = 0;
	service: string | undefined;
	/** The last error that the server pushed: the reason of a close that follows with its code. */
	lastError: ArtcafeError | undefined;
	readonly #parts: SessionParts;
	readonly #wire = new ClientSession();
	#challenge: ChallengeReply | undefined;
	#lastReported = "";

	constructor(parts: SessionParts) {
		this.#parts = parts;
		this.service = parts.service;
	}

	/** Whether the login has succeeded. */
	get isConnected(): boolean {
		return this.#wire.state === "connected";
	}

	// --- the login ---

	/** Return the first frame of a login by signature. */
	requestChallenge(): string {
		const body = { tenant_id: this.#parts.tenant, agent_id: this.#parts.agent };
		return this.#wire.send("challenge", jsonText(body), CHALLENGE_ID);
	}

	/** Return the text of the challenge once it has arrived, until `prove`. Throws `challenge_refused`. */
	toSign(): string | undefined {
		if (this.#wire.state !== "challenged" || this.#challenge === undefined) return undefined;
		const { challenge, challenge_id } = this.#challenge;
		const { tenant = "", agent = "" } = this.#parts;
		this.service = checkChallenge(challenge, { tenant, agent, challenge: challenge_id, service: this.service });
		return challenge;
	}

	/** Return the second frame, with the armored signature of `toSign`. */
	prove(signature: string): string {
		return this.#connect({ challenge_id: this.#challenge?.challenge_id ?? "", signature });
	}

	/** Return the only frame of a login by token. */
	present(token: string): string {
		return this.#connect({ access_token: token, ...(this.#parts.tenant === undefined ? {} : { tenant_id: this.#parts.tenant }) });
	}

	#connect(proof: Connect): string {
		const { maxUnacked, answering, takesQueues } = this.#parts;
		const body: Connect = { ...proof, max_requests: answering.maxRequests };
		if (maxUnacked !== null) body.max_unacked = maxUnacked;
		if (!takesQueues) body.queues = false;
		return this.#wire.send("connect", jsonText(body), CONNECT_ID);
	}

	// --- after the login ---

	/**
	 * Handle a frame of the server. `now` is monotonic, in milliseconds. Throws `bad_frame` for a frame that is malformed or out
	 * of turn, and `ConnectionLost` for a refused login.
	 */
	receive(text: string, now: number): void {
		const wasConnected = this.isConnected;
		const { inbox, answering, limits } = this.#parts;
		const { id, kind, body } = this.#wire.receive(text);
		if (kind === null) return;
		if (kind === "error") this.#onError(id, body, now, !wasConnected);
		else if (kind === "message") inbox.onMessage(body);
		else if (kind === "gap") inbox.onGapFrame(body.channel, body, body.epoch ?? null);
		else if (kind === "moved") inbox.onMoved(body);
		else if (kind === "limits") limits.set(body.name, body);
		else if (kind === "challenge") this.#challenge = body;
		else if (kind === "connect") {
			this.frameLimits = body.limits as FrameLimits;
			this.pingS = body.ping_s;
		} else if (kind === "request" && id === null) answering.onRequest(body);
		else if (kind === "cancel") answering.onCancel(body);
		else if (id !== null) this.#parts.outbox.onReply(id, kind, body as Reply);
	}

	/** Return the frames to send now, and count them as sent. Empty before the login has succeeded. */
	due(now: number): string[] {
		if (!this.isConnected) return [];
		const { inbox, outbox } = this.#parts;
		// Acks leave before a `subscribe`: they move the cursor at which its delivery begins.
		return [
			...inbox.acks(outbox.subscribing).map((ack) => this.#wire.send("ack", JSON.stringify(ack))),
			...outbox.cancels().map((id) => this.#wire.send("cancel", JSON.stringify({ id }))),
			...outbox.due(now).map((command) => this.#wire.send(command.kind, command.bodyText, command.id)),
		];
	}

	/** Send nothing any more: the connection has ended. */
	close(): void {
		this.#wire.close();
	}

	#onError(id: number | null, body: ErrorBody, now: number, isLogin: boolean): void {
		const error = errorOf(body);
		if (error.limit !== undefined) this.#parts.limits.set(error.limit.name, error.limit);
		if (isLogin) throw new ConnectionLost(error, this.#canLoginLater(error));
		if (id !== null) {
			this.#parts.outbox.onError(id, error, now);
			return;
		}
		this.lastError = error;
		this.#report(`${error.message}${listed(body.channels ?? [])}`);
	}

	#canLoginLater(error: ArtcafeError): boolean {
		if (error.code === "credentials_expired") return this.#parts.hasFreshTokens;
		const close = closeCodeOf(error.code);
		return error.isTemporary || (close !== undefined && shouldReconnect(close));
	}

	/** Log a pushed error, since no call waits for it. Repeats are skipped: each ack of a paused channel causes the same one. */
	#report(text: string): void {
		if (text === this.#lastReported) return;
		this.#lastReported = text;
		this.#parts.log(`the server reports: ${text}`);
	}
}

function listed(channels: readonly string[]): string {
	if (channels.length === 0) return "";
	const more = channels.length > MAX_LISTED_CHANNELS ? ` and ${channels.length - MAX_LISTED_CHANNELS} more` : "";
	return ` (${channels.slice(0, MAX_LISTED_CHANNELS).join(", ")}${more})`;
}
