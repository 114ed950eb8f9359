/** The path of a REST request, and its other parts. */

import { invalid } from "./errors.js";

export interface RequestOptions {
	/** Of a POST: a repeat with the same key changes nothing and gets the same answer. */
	idempotencyKey?: string;
	signal?: AbortSignal;
}

/** What a request has besides its method and path. */
export interface RequestParts {
	body?: unknown;
	query?: Readonly<Record<string, unknown>>;
	options?: RequestOptions;
}

/** Return a segment of a path. Throws `invalid` for an id that a URL would resolve to another path. */
export function segment(id: string): string {
	if (id === "" || id === "." || id === "..") throw invalid("id", `'${id}' is not an id`);
	try {
		return encodeURIComponent(id);
	} catch {
		throw invalid("id", "must be Unicode text");
	}
}

/** Return the path of a tenant. */
export function tenantPath(tenantId: string): string {
	return `/v1/tenants/${segment(tenantId)}`;
}
