/** The sign-in with the identity provider: OpenID Connect's code flow with PKCE, as a public client. */

import * as oauth from "oauth4webapi";

import { ArtcafeError } from "../../clients/typescript/src/errors.js";
import type { Home } from "../../clients/typescript/src/generated/rest.js";
import type { Credentials } from "./credentials.js";
import { go } from "./router.js";

const STARTED = "artcafe-sign-in";
/** Another page waits for the token of the sign-in, on this channel. */
const RENEWS = /^#renew=([\w-]+)$/;

/** For an issuer that does not say when its tokens end. */
const DEFAULT_LIFETIME_S = 300;
/** How often to look whether the other window is still open. */
const CLOSED_MS = 1000;

/** What is kept from the redirect to the return: no token, and nothing that is of use to anybody later. */
interface Started {
	state: string;
	nonce: string;
	verifier: string;
	hash: string;
	channel: string | null;
}

/** The console's registration at the issuer. */
interface Provider {
	server: oauth.AuthorizationServer;
	client: oauth.Client;
	options: { [oauth.allowInsecureRequests]: boolean };
	scope: string;
}

function redirectUri(): string {
	return `${window.location.origin}/console`;
}

async function providerOf({ issuer, console_client_id, console_scope }: Home): Promise<Provider> {
	if (issuer === null) throw new ArtcafeError("internal", "this server has no issuer");
	if (console_client_id === null) {
		throw new ArtcafeError("unavailable", `the operator has not set ARTCAFE_CONSOLE_CLIENT_ID: the id of a public client of ${issuer}`);
	}
	const url = new URL(issuer);
	// The server accepts an issuer without TLS, for a trial on one machine.
	const options = { [oauth.allowInsecureRequests]: url.protocol === "http:" };
	const response = await oauth.discoveryRequest(url, options);
	const server = await oauth.processDiscoveryResponse(url, response);
	return { server, client: { client_id: console_client_id, token_endpoint_auth_method: "none" }, options, scope: console_scope };
}

/** Go to the issuer's page. It comes back to the console. Throws `unavailable` if the issuer does not answer. */
export async function startSignIn(home: Home): Promise<void> {
	const { server, client, scope } = await reaching(home, () => providerOf(home));
	const started: Started = {
		state: oauth.generateRandomState(),
		nonce: oauth.generateRandomNonce(),
		verifier: oauth.generateRandomCodeVerifier(),
		hash: window.location.hash,
		channel: RENEWS.exec(window.location.hash)?.[1] ?? null,
	};
	window.sessionStorage.setItem(STARTED, JSON.stringify(started));
	const to = new URL(server.authorization_endpoint ?? "");
	const query = {
		client_id: client.client_id,
		redirect_uri: redirectUri(),
		response_type: "code",
		scope,
		code_challenge: await oauth.calculatePKCECodeChallenge(started.verifier),
		code_challenge_method: "S256",
		state: started.state,
		nonce: started.nonce,
	};
	for (const [name, value] of Object.entries(query)) to.searchParams.set(name, value);
	window.location.assign(to);
}

/** Return whether the page was opened by the issuer's redirect. */
export function isReturn(): boolean {
	const query = new URLSearchParams(window.location.search);
	return query.has("state") && (query.has("code") || query.has("error"));
}

/** Exchange the code of the redirect for a token. Restores the address from before, without the code. */
export async function finishSignIn(home: Home): Promise<Credentials> {
	const returned = new URL(window.location.href);
	const started = takeStarted();
	go(`${window.location.pathname}${started?.channel === null ? started.hash : ""}`, { replace: true });
	if (started === null) throw new ArtcafeError("sign_in_failed", "this page was not opened by a sign-in that began here; sign in again");
	const provider = await reaching(home, () => providerOf(home));
	const { server, client, options } = provider;
	const tokens = await reaching(home, async () => {
		const parameters = oauth.validateAuthResponse(server, client, returned, started.state);
		const answer = await oauth.authorizationCodeGrantRequest(server, client, oauth.None(), parameters, redirectUri(), started.verifier, options);
		return oauth.processAuthorizationCodeResponse(server, client, answer, { expectedNonce: started.nonce, requireIdToken: true });
	});
	const credentials = credentialsOf(provider, tokens, { idToken: null, refreshToken: null });
	if (started.channel !== null) handOver(started.channel, credentials);
	return credentials;
}

function takeStarted(): Started | null {
	const text = window.sessionStorage.getItem(STARTED);
	window.sessionStorage.removeItem(STARTED);
	return text === null ? null : (JSON.parse(text) as Started);
}

/** What a later answer of the token endpoint may leave out. */
interface Kept {
	idToken: string | null;
	refreshToken: string | null;
}

function credentialsOf(provider: Provider, tokens: oauth.TokenEndpointResponse, kept: Kept): Credentials {
	const idToken = tokens.id_token ?? kept.idToken;
	const refreshToken = tokens.refresh_token ?? kept.refreshToken;
	return {
		accessToken: tokens.access_token,
		expiresAt: Date.now() + (tokens.expires_in ?? DEFAULT_LIFETIME_S) * 1000,
		idToken,
		renew: refreshToken === null ? null : () => renew(provider, refreshToken, idToken),
	};
}

async function renew(provider: Provider, refreshToken: string, idToken: string | null): Promise<Credentials> {
	const { server, client, options, scope } = provider;
	const request = async (additionalParameters: Record<string, string>) => {
		const answer = await oauth.refreshTokenGrantRequest(server, client, oauth.None(), refreshToken, { ...options, additionalParameters });
		return oauth.processRefreshTokenResponse(server, client, answer);
	};
	// Without a scope the issuer grants that of the sign-in (RFC 6749, section 6), which may be less than what was requested. Entra ID
	// refuses to, if the client and its API are one application (AADSTS90009).
	const tokens = await request({}).catch((error: unknown) => {
		if (error instanceof oauth.ResponseBodyError) return request({ scope });
		throw error;
	});
	return credentialsOf(provider, tokens, { idToken, refreshToken });
}

/**
 * Explain the refusal of an access token by the server, right after the issuer's sign-in: then a setting is wrong, and signing in
 * again does not help. Returns other errors unchanged.
 */
export function explainRefusal({ issuer, console_scope }: Home, accessToken: string, error: unknown): unknown {
	if (issuer === null || !(error instanceof ArtcafeError) || error.code !== "unauthenticated") return error;
	const claims = claimsOf(accessToken);
	const found = claims === null ? "it is no JWT" : `its audience is ${claims.aud ?? claims.client_id}, its issuer ${claims.iss}`;
	const remedy = `sets ARTCAFE_CONSOLE_SCOPE (now ${console_scope}) to scopes that give a JWT for ArtCafe: with an audience in ARTCAFE_CLIENT_IDS, and the issuer in ARTCAFE_ISSUER`;
	return new ArtcafeError("sign_in_failed", `the identity provider ${issuer} has signed you in, but this server refuses its access token: ${found}. The operator ${remedy}`, { cause: error });
}

/** The claims of an access token that say whom it is for, or null if it is no JWT. Only to explain a refusal: nothing is verified. */
function claimsOf(token: string): { iss?: string; aud?: string | string[]; client_id?: string } | null {
	try {
		return JSON.parse(atob((token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/")));
	} catch {
		return null;
	}
}

/** Turn what the issuer or the library refused into an error that says what to do. */
async function reaching<T>(home: Home, act: () => Promise<T>): Promise<T> {
	try {
		return await act();
	} catch (error) {
		if (error instanceof ArtcafeError) throw error;
		if (error instanceof oauth.AuthorizationResponseError || error instanceof oauth.ResponseBodyError) {
			throw new ArtcafeError("sign_in_failed", `the identity provider ${home.issuer} refused the sign-in: ${error.error_description ?? error.error}`, { cause: error });
		}
		if (error instanceof oauth.OperationProcessingError) {
			throw new ArtcafeError("sign_in_failed", `the answer of the identity provider ${home.issuer} is not valid: ${error.message}`, { cause: error });
		}
		const reason = error instanceof Error ? error.message : String(error);
		throw new ArtcafeError("unavailable", `the identity provider ${home.issuer} cannot be reached (${reason})`, { isTemporary: true, cause: error });
	}
}

// --- a sign-in in another window, while this page stays as it is ---

/**
 * Sign in in another window, so that what was typed here is kept. Resolves with its token. The name of the channel is random, and
 * known to these two pages alone.
 */
export function signInElsewhere(): Promise<Credentials> {
	const name = oauth.generateRandomState();
	const channel = new BroadcastChannel(name);
	const other = window.open(`${redirectUri()}#renew=${name}`, "_blank", "popup,width=480,height=720");
	let watching: ReturnType<typeof setInterval>;
	return new Promise<Credentials>((resolve, reject) => {
		watching = setInterval(() => {
			if (other?.closed === false) return;
			reject(new ArtcafeError("sign_in_failed", other === null ? "the browser has blocked the other window; allow it" : "the other window was closed"));
		}, CLOSED_MS);
		channel.onmessage = ({ data }: MessageEvent<{ accessToken: string; expiresInMs: number; idToken: string | null }>) => {
			resolve({ accessToken: data.accessToken, expiresAt: Date.now() + data.expiresInMs, idToken: data.idToken, renew: null });
			other?.close();
		};
	}).finally(() => {
		clearInterval(watching);
		channel.close();
	});
}

/** Whether this page was opened by `signInElsewhere`. */
export function isForAnother(): boolean {
	return RENEWS.test(window.location.hash);
}

function handOver(channel: string, { accessToken, expiresAt, idToken }: Credentials): void {
	new BroadcastChannel(channel).postMessage({ accessToken, expiresInMs: expiresAt - Date.now(), idToken });
}
