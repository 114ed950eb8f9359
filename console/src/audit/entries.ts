/** Reading audit entries with filters. */

import type { AuditPage, DigestedEntry } from "../../../clients/typescript/src/generated/rest.js";
import { client, tenantId } from "../session.js";

export interface AuditFilter {
	/** An agent's id, or `usr:` and a user's id: the actor or the target. */
	agent?: string;
	action?: string;
	since?: string;
	until?: string;
}

/** Pages without an entry that a filter may be read through at once: the server filters while it reads. */
const MAX_EMPTY_PAGES = 50;

/**
 * Return the next entries that fit, newest first: a page of a filtered list may be empty, so pages are read until some entries were
 * found. `fits` is a filter that the server does not have.
 */
export async function readPage(filter: AuditFilter, fits: (entry: DigestedEntry) => boolean, cursor: string | null, signal: AbortSignal): Promise<AuditPage> {
	let page: AuditPage = { items: [], next_cursor: cursor };
	for (let round = 0; round < MAX_EMPTY_PAGES && page.items.length === 0; round += 1) {
		const found = await client.listAudit(tenantId(), { ...filter, cursor: page.next_cursor, limit: 200 }, { signal });
		page = { items: found.items.filter(fits), next_cursor: found.next_cursor };
		if (page.next_cursor === null) break;
	}
	return page;
}

/** Return the newest entries that fit, at most `count`. */
export async function readEntries(filter: AuditFilter, count: number, signal: AbortSignal): Promise<DigestedEntry[]> {
	const entries: DigestedEntry[] = [];
	let cursor: string | null = null;
	do {
		const page: AuditPage = await readPage(filter, () => true, cursor, signal);
		entries.push(...page.items);
		cursor = page.next_cursor;
	} while (cursor !== null && entries.length < count);
	return entries.slice(0, count);
}
