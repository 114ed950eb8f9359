/** The address of the page, in its fragment: `#/t/{tenant}/agents?status=disabled`. */

import { computed, signal } from "@preact/signals";

/** The variable parts of a screen's path, by name. */
export type Params = Readonly<Record<string, string>>;

/** What each screen is given. */
export interface ScreenProps {
	/** The variable parts of the screen's path. */
	params: Params;
}

/** An address: the decoded segments of its path, and its query. */
export interface Location {
	readonly segments: readonly string[];
	readonly query: URLSearchParams;
}

const fragment = signal("");
const follow = () => {
	if (!window.location.hash.startsWith("#code=")) fragment.value = window.location.hash; // A sign-in code is no place.
};
follow();
window.addEventListener("hashchange", follow);

export const location = computed((): Location => parse(fragment.value));

/** Put the address of the present place into the browser's, in place of what is there. */
export function restoreAddress(): void {
	go(window.location.pathname + fragment.value, { replace: true });
}

/** The id of the tenant in the address; null on the pages outside of any. */
export const tenantInAddress = computed((): string | null => {
	const [first, tenant] = location.value.segments;
	return first === "t" && tenant !== undefined ? tenant : null;
});

function parse(hash: string): Location {
	const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
	return { segments: path.split("/").filter(Boolean).map(decoded), query: new URLSearchParams(query) };
}

function decoded(segment: string): string {
	try {
		return decodeURIComponent(segment);
	} catch {
		return segment;
	}
}

/** Return the fragment of an address: `link("t", tenant, "agents")`. Each segment is encoded. */
export function link(...segments: readonly string[]): string {
	return `#/${segments.map(encodeURIComponent).join("/")}`;
}

/** Return the fragment of a screen of the tenant in the address: `tenantLink("agents", agent.id)`. */
export function tenantLink(...segments: readonly string[]): string {
	return link("t", tenantInAddress.value ?? "", ...segments);
}

/** Show another address. `replace` leaves no entry in the history. */
export function go(to: string, { replace = false } = {}): void {
	if (replace) window.history.replaceState(null, "", to);
	else window.history.pushState(null, "", to);
	fragment.value = window.location.hash;
}

/** Change values of the query; null removes one. The back button skips such changes. */
export function setQuery(changes: Readonly<Record<string, string | null>>): void {
	const query = new URLSearchParams(location.value.query);
	for (const [name, value] of Object.entries(changes)) {
		if (value === null || value === "") query.delete(name);
		else query.set(name, value);
	}
	const text = query.toString();
	go(`${link(...location.value.segments)}${text === "" ? "" : `?${text}`}`, { replace: true });
}

/** Return the variable parts if the segments fit a pattern such as `agents/:agent`, else null. */
export function match(pattern: string, segments: readonly string[]): Params | null {
	const expected = pattern.split("/").filter(Boolean);
	if (expected.length !== segments.length) return null;
	const params: Record<string, string> = {};
	for (const [index, part] of expected.entries()) {
		const segment = segments[index] ?? "";
		if (part.startsWith(":")) params[part.slice(1)] = segment;
		else if (part !== segment) return null;
	}
	return params;
}
