/** Who is signed in, and the tenant that they look at. The access token is kept in memory only: a reload signs in again. */

import { computed, effect, signal } from "@preact/signals";

import { Client } from "../../clients/typescript/src/client.js";
import { ArtcafeError } from "../../clients/typescript/src/errors.js";
import type { Home, Me, MyTenant, Role } from "../../clients/typescript/src/generated/rest.js";
import type { Credentials } from "./credentials.js";
import { explainRefusal } from "./oidc.js";
import { tenantInAddress } from "./router.js";

type State = "starting" | "signed_out" | "signed_in";

export const state = signal<State>("starting");
/** Addresses and settings of the server. */
export const home = signal<Home | null>(null);
export const me = signal<Me | null>(null);
/** Whether the person must sign in again: their token has expired, and the page is kept as it is. */
export const isExpired = signal(false);

const credentials = signal<Credentials | null>(null);
let timer: ReturnType<typeof setTimeout> | undefined;
let waiting: { resolve: (token: string) => void; reject: (error: unknown) => void }[] = [];

/** The chosen tenant, with the person's role. Null if none is chosen, or none of their tenants has the id in the address. */
export const tenant = computed((): MyTenant | null => {
	const id = tenantInAddress.value;
	return me.value?.tenants.find((each) => each.tenant_id === id) ?? null;
});
export const role = computed((): Role | null => tenant.value?.role ?? null);
/** Whether the person may change things: everybody but viewers. The server decides; this only hides what it would refuse. */
export const canWrite = computed(() => role.value !== null && role.value !== "viewer");
export const isAdmin = computed(() => role.value === "owner" || role.value === "admin");

/** The REST client of the person who is signed in. Calls wait while the person signs in again. */
export let client = newClient();

function newClient(): Client {
	return new Client({ url: window.location.origin, token });
}

/** Return the id of the chosen tenant. Only screens call it, which are shown within a tenant. */
export function tenantId(): string {
	return tenant.value?.tenant_id ?? "";
}

/** Return a valid access token. Waits for a new sign-in if the token has expired and cannot be renewed. */
export async function token(): Promise<string> {
	const held = credentials.value;
	if (held === null) throw new ArtcafeError("unauthenticated", "you are not signed in");
	if (Date.now() < held.expiresAt) return held.accessToken;
	const renewed = await (held.renewal ??= held.renew?.().catch(() => null));
	if (credentials.value !== held) return token(); // Another call has used the renewed token, or the person has signed out.
	if (renewed) {
		accept(renewed);
		return renewed.accessToken;
	}
	isExpired.value = true;
	return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
}

/** Use a token from now on. Calls that waited for one continue. At its end it is renewed, or the person is asked to sign in again. */
function accept(fresh: Credentials): void {
	credentials.value = fresh;
	client = newClient(); // The one before keeps its token until the server refuses it.
	isExpired.value = false;
	clearTimeout(timer);
	timer = setTimeout(() => void token().catch(() => {}), fresh.expiresAt - Date.now());
	for (const each of waiting.splice(0)) each.resolve(fresh.accessToken);
}

/** Return the token that proves the person's e-mail address, for an invitation. Null with the local identity. */
export function idToken(): string | null {
	return credentials.value?.idToken ?? null;
}

/**
 * Sign in with the first token of this page, or again with a later one: then the page stays as it is, unless another person has
 * signed in.
 */
export async function signIn(fresh: Credentials): Promise<void> {
	const found = await new Client({ url: window.location.origin, token: fresh.accessToken }).readMe().catch((error: unknown) => {
		throw home.value === null ? error : explainRefusal(home.value, fresh.accessToken, error);
	});
	if (!("user_id" in found)) throw new ArtcafeError("forbidden", "this token is an agent's; the console is for people");
	if (me.value !== null && me.value.user_id !== found.user_id) signOut();
	accept(fresh);
	me.value = found;
	state.value = "signed_in";
}

/** Read the person's tenants and outstanding terms again. */
export async function readMe(): Promise<void> {
	const found = await client.readMe();
	if ("user_id" in found) me.value = found;
}

/** Forget the token and everything that was shown. */
export function signOut(): void {
	const refused = new ArtcafeError("unauthenticated", "you have signed out");
	for (const each of waiting.splice(0)) each.reject(refused);
	credentials.value = null;
	client = newClient();
	clearTimeout(timer);
	me.value = null;
	isExpired.value = false;
	state.value = "signed_out";
}

/** Call a function with each change of the chosen tenant, also with the present one. */
export function onTenant(handle: (id: string | null) => void): () => void {
	return effect(() => handle(tenant.value?.tenant_id ?? null));
}
