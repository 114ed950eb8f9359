/** Open a connection: find the gateway's address, open the WebSocket, log in. Every failure is a `ConnectionLost`. */

import { openSocket } from "#socket";

import { gatewayAddress, isDowngrade, isExposed, isGateway, restAddress } from "./addresses.js";
import { lostByClose } from "./close-codes.js";
import { ArtcafeError, ConnectionLost, invalid, unavailable } from "./errors.js";
import type { Home } from "./generated/rest.js";
import { fetchJson } from "./http.js";
import type { Session } from "./session.js";
import type { Signer } from "./signer.js";
import type { Socket } from "./socket.js";
import { SUBPROTOCOL } from "./wire-session.js";

const OPEN_MS = 10_000;
/** The server waits 10 s for a login; this limit is for a server that never replies. */
const LOGIN_MS = 15_000;
/** Silence after which the connection counts as lost, in intervals of the server's pings. */
const SILENT_PINGS = 2.5;

/** How an agent proves who it is. */
export type Proof = { signer: Signer } | { token: string | (() => string | Promise<string>) };

/** One logged-in connection. */
export interface Wire {
	socket: Socket;
	session: Session;
	/** Resolves with the reason when the connection has ended. */
	ended: Promise<ConnectionLost>;
}

/** Return the meaning of an error while connecting or handling a frame. An unexpected one ends the agent. */
export function lostBy(error: unknown): ConnectionLost {
	if (error instanceof ConnectionLost) return error;
	if (error instanceof ArtcafeError) return new ConnectionLost(error, error.isTemporary);
	return new ConnectionLost(new ArtcafeError("internal", `the client failed: ${String(error)}`, { cause: error }), false);
}

/** The address of a server's gateway, or of its REST API, from which the gateway's address is read. */
class ServerAddress {
	readonly #url: string;
	/** After a failed connection REST is queried again: the gateway may have moved. */
	#gateway: string | undefined;

	constructor(url: string, log: (text: string) => void) {
		this.#url = isGateway(url) ? gatewayAddress(url) : restAddress(url);
		if (isExposed(this.#url)) {
			log(`${this.#url} is on another machine and not encrypted: others on the network path can read and change the traffic and act as this agent; use https:// or wss://`);
		}
	}

	async find(): Promise<string> {
		if (isGateway(this.#url)) return this.#url;
		this.#gateway ??= await this.#read();
		return this.#gateway;
	}

	async #read(): Promise<string> {
		const home = (await fetchJson(`${this.#url}/v1`, { timeoutMs: OPEN_MS })) as Home;
		const found = gatewayAddress(home.gateway_url);
		if (isDowngrade(this.#url, found)) throw invalid("url", `${this.#url} has TLS, but the gateway that it names has not (${found})`);
		return found;
	}

	forget(): void {
		this.#gateway = undefined;
	}
}

/** Opens connections to one of several servers: the last one that answered, and after a failure the next. */
export class Dialer {
	readonly #addresses: ServerAddress[];
	readonly #proof: Proof;

	constructor(url: string | readonly string[], proof: Proof, log: (text: string) => void) {
		const urls = typeof url === "string" ? url.split(/[\s,]+/).filter(Boolean) : url;
		if (urls.length === 0) throw invalid("url", "give the address of at least one server");
		this.#addresses = urls.map((each) => new ServerAddress(each, log));
		this.#proof = proof;
	}

	/**
	 * Return a logged-in connection; `onFrame` is called after each frame. A refused login is thrown at once, since the servers
	 * are one platform. After any other failure the next address is tried.
	 */
	async open(newSession: () => Session, onFrame: (socket: Socket) => void): Promise<Wire> {
		const failed: ConnectionLost[] = [];
		for (const address of [...this.#addresses]) {
			try {
				return await this.#open(address, newSession(), onFrame);
			} catch (error) {
				const lost = lostBy(error);
				failed.push(lost);
				if (!lost.shouldReconnect && lost.error.code !== "invalid") throw lost;
				address.forget();
				this.#addresses.push(...this.#addresses.splice(this.#addresses.indexOf(address), 1));
			}
		}
		throw failed.find((lost) => lost.shouldReconnect) ?? failed[0] ?? new ConnectionLost(unavailable("the gateway"), true);
	}

	async #open(address: ServerAddress, session: Session, onFrame: (socket: Socket) => void): Promise<Wire> {
		const url = await address.find();
		const token = "token" in this.#proof ? await freshToken(this.#proof.token) : undefined;
		const login = new Login(session, token, "signer" in this.#proof ? this.#proof.signer : undefined, onFrame);
		const socket = await openSocket(url, SUBPROTOCOL, OPEN_MS, login);
		const timer = setTimeout(() => login.end(new ConnectionLost(unavailable(`${url} (it does not answer the login)`), true), 1000), LOGIN_MS);
		try {
			return await login.run(socket);
		} finally {
			clearTimeout(timer);
		}
	}
}

async function freshToken(token: string | (() => string | Promise<string>)): Promise<string> {
	if (typeof token === "string") return token;
	try {
		return await token();
	} catch (error) {
		throw error instanceof ArtcafeError ? error : unavailable(`a token (${error instanceof Error ? error.message : String(error)})`, error);
	}
}

/** Handles the events of one socket: first the login, then the frames. */
class Login {
	readonly #session: Session;
	readonly #token: string | undefined;
	readonly #signer: Signer | undefined;
	readonly #onFrame: (socket: Socket) => void;
	readonly #ended: Promise<ConnectionLost>;
	#resolveEnded: (lost: ConnectionLost) => void = () => {};
	#resolveWire: (wire: Wire) => void = () => {};
	#rejectWire: (error: unknown) => void = () => {};
	#socket: Socket | undefined;
	#isLoggedIn = false;
	#lost: ConnectionLost | undefined;

	constructor(session: Session, token: string | undefined, signer: Signer | undefined, onFrame: (socket: Socket) => void) {
		this.#session = session;
		this.#token = token;
		this.#signer = signer;
		this.#onFrame = onFrame;
		this.#ended = new Promise((resolve) => (this.#resolveEnded = resolve));
	}

	/** Log in. Resolves after the reply to `connect`. */
	run(socket: Socket): Promise<Wire> {
		this.#socket = socket;
		return new Promise((resolve, reject) => {
			this.#resolveWire = resolve;
			this.#rejectWire = reject;
			if (this.#lost !== undefined) reject(this.#lost);
			else socket.send(this.#token === undefined ? this.#session.requestChallenge() : this.#session.present(this.#token));
		});
	}

	onText(text: string): void {
		if (this.#lost !== undefined || this.#socket === undefined) return;
		try {
			this.#session.receive(text, performance.now());
			if (this.#isLoggedIn) this.#onFrame(this.#socket);
			else this.#continue(this.#socket);
		} catch (error) {
			const isFrame = error instanceof ArtcafeError && error.code === "bad_frame";
			this.end(isFrame ? new ConnectionLost(error, false) : lostBy(error), isFrame ? 1002 : 1000);
		}
	}

	onClose(code: number, reason: string): void {
		this.end(lostByClose(code, reason, this.#session.lastError));
	}

	/** Report the end of the connection once, and close the socket with a code if it is open. */
	end(lost: ConnectionLost, code?: number): void {
		if (this.#lost !== undefined) return;
		this.#lost = lost;
		this.#session.close();
		if (code !== undefined) this.#socket?.close(code, code === 1002 ? "bad frame" : "");
		this.#rejectWire(lost);
		this.#resolveEnded(lost);
	}

	#continue(socket: Socket): void {
		if (this.#session.isConnected) {
			this.#isLoggedIn = true;
			if (this.#session.pingS > 0) socket.watch(this.#session.pingS * SILENT_PINGS * 1000);
			this.#resolveWire({ socket, session: this.#session, ended: this.#ended });
			return;
		}
		const challenge = this.#session.toSign();
		if (challenge !== undefined) void this.#sign(socket, challenge);
	}

	async #sign(socket: Socket, challenge: string): Promise<void> {
		try {
			const signature = await this.#signer?.sign(challenge);
			if (signature !== undefined && this.#lost === undefined) socket.send(this.#session.prove(signature));
		} catch (error) {
			const problem = error instanceof ArtcafeError ? error : new ArtcafeError("key_unusable", `the signer failed: ${String(error)}`, { cause: error });
			this.end(new ConnectionLost(problem, problem.isTemporary), 1000);
		}
	}
}
