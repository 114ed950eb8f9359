/**
 * The order of frames on one connection, without I/O. The tests run it through the transcripts that the Python client is
 * tested with (`tests/wire/vectors/session.json`).
 */

import { ArtcafeError, badFrame } from "./errors.js";
import { COMMAND_KINDS, PUSH_KINDS, REPLY_KINDS, WITHOUT_ID, type Commands, type Pushes, type Replies } from "./generated/frames.js";

export const SUBPROTOCOL = "artcafe.v1";

/** How far the login has come. */
export type ClientState = "fresh" | "challenge_requested" | "challenged" | "connect_sent" | "connected" | "renewing" | "closed";
export type CommandKind = keyof Commands;
export type IncomingKind = keyof Replies | keyof Pushes;

type Bodies = { [K in IncomingKind]: (K extends keyof Replies ? Replies[K] : never) | (K extends keyof Pushes ? Pushes[K] : never) };
/** A frame of the server. The kind is null for a frame of a newer server, to be ignored. */
export type Incoming = { [K in IncomingKind]: { id: number | null; kind: K; body: Bodies[K] } }[IncomingKind] | { id: null; kind: null; body: null };

type Table = ReadonlyMap<ClientState, ReadonlyMap<string, ClientState>>;

const WORK = COMMAND_KINDS.filter((kind) => kind !== "challenge" && kind !== "connect");
const KINDS: readonly IncomingKind[] = [...new Set<IncomingKind>([...REPLY_KINDS, ...PUSH_KINDS])];
const ANSWERS = KINDS.filter((kind) => kind !== "challenge" && kind !== "connect");
const PUSHED: ReadonlySet<string> = new Set(PUSH_KINDS);
const WITHOUT_REPLY: ReadonlySet<string> = new Set(WITHOUT_ID);

function stay(state: ClientState, kinds: readonly string[]): [string, ClientState][] {
	return kinds.map((kind) => [kind, state]);
}

/** The commands that a client may send, and the state after them. */
export const CLIENT_SENDS: Table = new Map<ClientState, ReadonlyMap<string, ClientState>>([
	["fresh", new Map([["challenge", "challenge_requested"], ["connect", "connect_sent"]])],
	["challenged", new Map([["challenge", "challenge_requested"], ["connect", "connect_sent"]])],
	["connect_sent", new Map(stay("connect_sent", WORK))],
	["connected", new Map([["challenge", "renewing"], ["connect", "renewing"], ...stay("connected", WORK)])],
	["renewing", new Map([["connect", "renewing"], ...stay("renewing", WORK)])],
]);

/** The frames that a client accepts, and the state after them. After any other it closes the connection with 1002. */
export const CLIENT_RECEIVES: Table = new Map<ClientState, ReadonlyMap<string, ClientState>>([
	["fresh", new Map([["error", "fresh"]])],
	["challenge_requested", new Map([["challenge", "challenged"], ["error", "fresh"]])],
	["challenged", new Map([["error", "challenged"]])],
	["connect_sent", new Map([["connect", "connected"], ["error", "fresh"]])],
	["connected", new Map(stay("connected", ANSWERS))],
	["renewing", new Map([["challenge", "renewing"], ["connect", "connected"], ...stay("renewing", ANSWERS)])],
]);

/** The client's half of one connection. */
export class ClientSession {
	state: ClientState = "fresh";

	/** Return the frame of a command; `bodyText` is its JSON. Throws `out_of_turn`, with the state unchanged. */
	send(kind: CommandKind, bodyText: string, id: number | null = null): string {
		const after = CLIENT_SENDS.get(this.state)?.get(kind);
		if (after === undefined) {
			throw new ArtcafeError("out_of_turn", `${kind} is out of turn for a client in the state ${this.state}`);
		}
		this.state = after;
		return id === null || WITHOUT_REPLY.has(kind) ? `{"${kind}":${bodyText}}` : `{"id":${id},"${kind}":${bodyText}}`;
	}

	/** Parse a frame of the server. Throws `bad_frame` for one that is malformed or out of turn; the state is unchanged then. */
	receive(text: string): Incoming {
		const frame = parse(text);
		if (frame.kind !== null) {
			const after = CLIENT_RECEIVES.get(this.state)?.get(frame.kind);
			if (after === undefined) throw badFrame(`${frame.kind} is out of turn for a client in the state ${this.state}`);
			this.state = after;
		}
		return frame;
	}

	/** Accept and send nothing any more. */
	close(): void {
		this.state = "closed";
	}
}

type Fields = Record<string, unknown>;

function isObject(value: unknown): value is Fields {
	return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parse(text: string): Incoming {
	let frame: unknown;
	try {
		frame = JSON.parse(text);
	} catch (error) {
		throw badFrame(String(error));
	}
	if (!isObject(frame)) throw badFrame("it is not a JSON object");
	const id = frame["id"] ?? null;
	if (id !== null && !Number.isSafeInteger(id)) throw badFrame("its id is not an integer");
	const kind = KINDS.find((each) => (frame[each] ?? null) !== null);
	if (kind === undefined || (id === null && !PUSHED.has(kind))) return { id: null, kind: null, body: null };
	const body = frame[kind];
	if (!isObject(body)) throw badFrame(`its ${kind} is not an object`);
	const wrong = wrongField(kind, body);
	if (wrong !== undefined) throw badFrame(`its ${kind} has an invalid ${wrong}`);
	return { id, kind, body } as unknown as Incoming; // The fields that the SDK depends on were checked.
}

/** The fields that the SDK's own decisions depend on: a wrong type in them must not go unnoticed. */
const TEXTS: Partial<Record<IncomingKind, readonly string[]>> = {
	message: ["channel", "message_id", "from"],
	gap: ["channel", "reason"],
	moved: ["channel"],
	error: ["code", "message"],
	challenge: ["challenge_id", "challenge"],
	request: ["request_id"],
	cancel: ["request_id"],
};
const NUMBERS: Partial<Record<IncomingKind, readonly string[]>> = { gap: ["from"], moved: ["cursor", "moves"] };
const OPTIONAL_NUMBERS: Partial<Record<IncomingKind, readonly string[]>> = {
	message: ["seq", "prev", "deliveries"],
	gap: ["to"],
	subscribe: ["cursor", "last"],
	publish: ["seq"],
};

function wrongField(kind: IncomingKind, body: Fields): string | undefined {
	return (
		TEXTS[kind]?.find((name) => typeof body[name] !== "string") ??
		NUMBERS[kind]?.find((name) => typeof body[name] !== "number") ??
		OPTIONAL_NUMBERS[kind]?.find((name) => (body[name] ?? null) !== null && typeof body[name] !== "number")
	);
}
