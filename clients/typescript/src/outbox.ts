/**
 * The queue of commands without a reply: sent in order, many in flight, and sent again in that order after a lost connection.
 *
 * Commands of one kind are sent strictly in order: a temporarily refused command holds back later ones that were not sent yet.
 */

import * as backoff from "./backoff.js";
import { ArtcafeError, badFrame } from "./errors.js";
import type { Replies, RequestPush } from "./generated/frames.js";
import type { CommandKind } from "./wire-session.js";

/** Commands that are sent at most once: a second request is another one, and a new connection cannot answer an older one's. */
const NOT_REPEATED: ReadonlySet<CommandKind> = new Set<CommandKind>(["request", "reply"]);
/** Commands in flight, without requests, and requests without a last answer. Further ones wait; the server allows as many. */
const MAX_IN_FLIGHT = 256;
/** The two commands of the login use the ids 0 and 1. */
const FIRST_ID = 2;
const OUTCOME_UNKNOWN = "outcome_unknown";

export type Reply = Replies[keyof Replies];
export type Outcome = { reply: Reply } | { error: Error };

export interface CommandOptions {
	/** The channel of a `subscribe`. */
	channel?: string;
	/** The monotonic time at which its caller stops waiting, in milliseconds. */
	deadline?: number;
	/** Called with each answer to a request before the last one. */
	onPart?: (part: RequestPush) => void;
	/** The error for a caller whose time is over, in place of the command's own. */
	timeoutError?: ArtcafeError;
	/** Called with the command before it is sent, for a caller that may cancel it. */
	onPending?: (command: PendingCommand) => void;
}

/** A command from its call until its reply. */
export class PendingCommand {
	refusals = 0;
	/** The monotonic time before which a refused command is not sent again. */
	heldUntil = 0;
	/** Its id on the current connection; null while it is not in flight. */
	id: number | null = null;
	/** Why the last attempt had no final reply. `outcome_unknown` stays until a reply arrives. */
	problem: ArtcafeError | undefined;

	constructor(
		readonly order: number,
		readonly kind: CommandKind,
		/** The encoded body: encoding happens in the call, so that no value can end the loop that sends all commands. */
		readonly bodyText: string,
		readonly onDone: (outcome: Outcome) => void,
		readonly options: CommandOptions,
	) {}

	/** Return the error for a caller that stops waiting; undefined if the command was never sent. */
	timeoutError(): ArtcafeError | undefined {
		return this.options.timeoutError ?? this.outcome();
	}

	/**
	 * Return the error for the caller after this one of the server. It is about the last attempt: an earlier one of a publish may have
	 * been stored, though its repeat is refused.
	 */
	finalError(error: ArtcafeError): ArtcafeError {
		if (this.kind !== "publish" || this.problem?.code !== OUTCOME_UNKNOWN) return error;
		return new ArtcafeError(OUTCOME_UNKNOWN, this.problem.message, { isTemporary: true, cause: error });
	}

	/** Return the error of a command that will get no reply any more; undefined if it was never sent. */
	outcome(): ArtcafeError | undefined {
		return this.id === null ? this.problem : unknownOutcome(this.kind);
	}
}

function unknownOutcome(kind: CommandKind): ArtcafeError {
	if (kind === "request") {
		return new ArtcafeError("request_lost", "the connection to the server was lost before the answer arrived");
	}
	return new ArtcafeError(OUTCOME_UNKNOWN, `whether the server has done the ${kind} command is unknown; it may be repeated with the same key`, {
		isTemporary: true,
	});
}

export class Outbox {
	/** The channels of the `subscribe` commands in flight. */
	readonly subscribing: string[] = [];
	readonly #maxRateWaitMs: number;
	/** In the order of their calls. */
	#unsent: PendingCommand[] = [];
	readonly #inFlight = new Map<number, PendingCommand>();
	/** Commands in flight that no caller waits for. The effects of their replies (`onDone`) still apply. */
	readonly #cancelled = new Map<number, PendingCommand>();
	#toCancel: number[] = [];
	#nextId = FIRST_ID;
	#added = 0;

	/** A command refused by a rate limit is retried if the server asks for a wait of at most `maxRateWaitMs`. */
	constructor(maxRateWaitMs: number) {
		this.#maxRateWaitMs = maxRateWaitMs;
	}

	get size(): number {
		return this.#unsent.length + this.#inFlight.size;
	}

	/** Queue a command. `onDone` is called once, unless the command is cancelled before it was sent. */
	add(kind: CommandKind, bodyText: string, onDone: (outcome: Outcome) => void, options: CommandOptions = {}): PendingCommand {
		this.#added += 1;
		const command = new PendingCommand(this.#added, kind, bodyText, onDone, options);
		this.#queue([command]);
		return command;
	}

	#queue(commands: PendingCommand[]): void {
		const last = this.#unsent.at(-1)?.order ?? 0;
		this.#unsent.push(...commands);
		// A new command is the last one: thousands of publishes at once must not sort the queue thousands of times.
		if (commands.length > 1 || commands.some(({ order }) => order < last)) this.#unsent.sort((a, b) => a.order - b.order);
	}

	/** Stop waiting for a command; it is not sent again. May be repeated. */
	cancel(command: PendingCommand): void {
		if (command.id !== null) {
			if (!this.#inFlight.delete(command.id)) return;
			this.#cancelled.set(command.id, command);
			if (command.kind === "request") this.#toCancel.push(command.id);
		} else {
			this.#unsent = this.#unsent.filter((each) => each !== command);
		}
	}

	/** Return the commands to send now, in order, and count them as sent. `now` is monotonic, in milliseconds. */
	due(now: number): PendingCommand[] {
		if (this.#unsent.length === 0) return [];
		const found: PendingCommand[] = [];
		const kept: PendingCommand[] = [];
		const blocked = new Set<CommandKind>();
		const requests = [...this.#inFlight.values()].filter((command) => command.kind === "request").length;
		const room = { requests: MAX_IN_FLIGHT - requests, others: MAX_IN_FLIGHT - (this.#inFlight.size - requests) };
		for (const command of this.#unsent) {
			const counted = command.kind === "request" ? "requests" : "others";
			if (command.heldUntil > now || blocked.has(command.kind) || room[counted] === 0) {
				blocked.add(command.kind);
				kept.push(command);
				continue;
			}
			room[counted] -= 1;
			command.id = this.#nextId;
			this.#nextId += 1;
			this.#inFlight.set(command.id, command);
			if (command.options.channel !== undefined) this.subscribing.push(command.options.channel);
			found.push(command);
		}
		this.#unsent = kept;
		return found;
	}

	/** Return the ids of the requests to cancel at the server now, and count them as cancelled. */
	cancels(): number[] {
		const ids = this.#toCancel;
		this.#toCancel = [];
		return ids;
	}

	/** Return the time until a held command is due, or undefined if none is held. */
	waitMs(now: number): number | undefined {
		const held = this.#unsent.map((command) => command.heldUntil).filter((until) => until > now);
		return held.length === 0 ? undefined : Math.min(...held) - now;
	}

	/** Finish a command of this connection. Throws `bad_frame` for a reply of another kind than the command. */
	onReply(id: number, kind: string, reply: Reply): void {
		if (kind === "request" && (reply as RequestPush).more) {
			this.#inFlight.get(id)?.options.onPart?.(reply as RequestPush);
			return;
		}
		const command = this.#take(id);
		if (command === undefined) return;
		if (command.kind !== kind) throw badFrame(`a reply of ${kind} to ${command.kind}`);
		command.onDone({ reply });
	}

	/** Finish a command with the server's error, or retry it after a delay if the error is temporary. */
	onError(id: number, error: ArtcafeError, now: number): void {
		const isCancelled = this.#cancelled.has(id);
		const command = this.#take(id);
		if (command === undefined) return;
		const waitMs = error.retryAfterMs ?? 0;
		const isTooLong = waitMs > this.#maxRateWaitMs || now + waitMs > (command.options.deadline ?? Infinity);
		const isFinal = command.kind === "request" && error.code !== "too_fast"; // which says that nothing was sent
		if (!error.isTemporary || isCancelled || (waitMs > 0 && isTooLong) || isFinal) {
			command.onDone({ error: command.finalError(error) });
			return;
		}
		if (command.problem?.code !== OUTCOME_UNKNOWN) command.problem = error;
		command.refusals += 1;
		command.heldUntil = now + waitMs + backoff.delayMs(command.refusals);
		this.#queue([command]);
	}

	#take(id: number): PendingCommand | undefined {
		const command = this.#inFlight.get(id) ?? this.#cancelled.get(id);
		if (command === undefined) return undefined;
		this.#inFlight.delete(id);
		this.#cancelled.delete(id);
		command.id = null;
		if (command.options.channel !== undefined) this.subscribing.splice(this.subscribing.indexOf(command.options.channel), 1);
		return command;
	}

	/** Queue the commands in flight again, before all younger ones, in the order of their calls. Finish those that are never repeated. */
	onConnectionLost(): void {
		const lost = [...this.#inFlight.values()];
		this.#forgetInFlight();
		this.#nextId = FIRST_ID;
		const again: PendingCommand[] = [];
		for (const command of lost) {
			command.id = null;
			command.problem = unknownOutcome(command.kind);
			if (NOT_REPEATED.has(command.kind)) command.onDone({ error: command.problem });
			else again.push(command);
		}
		this.#queue(again);
	}

	#forgetInFlight(): void {
		this.#inFlight.clear();
		this.#cancelled.clear();
		this.#toCancel = [];
		this.subscribing.length = 0;
	}

	/** Finish every command: there will be no further connection. */
	fail(error: Error): void {
		const waiting = [...this.#unsent, ...this.#inFlight.values()];
		this.#unsent = [];
		const outcomes = waiting.map((command) => command.outcome());
		this.#forgetInFlight();
		waiting.forEach((command, at) => command.onDone({ error: outcomes[at] ?? error }));
	}
}
