/** The check of the audit's chain: each entry has the digest of the one before it, so none was changed, removed or inserted. */

import type { DigestedEntry } from "../../../clients/typescript/src/generated/rest.js";

export interface ChainBreak {
	/** The entry's number. */
	number: number;
	problem: string;
}

/** Return the text of an entry that its digest is of: JSON without the digest, with sorted keys and no spaces. */
export function canonicalText({ digest: _, ...entry }: DigestedEntry): string {
	return JSON.stringify(entry, (_key, value: unknown) =>
		typeof value === "object" && value !== null && !Array.isArray(value) ? Object.fromEntries(Object.entries(value).toSorted(byName)) : value,
	);
}

function byName([a]: [string, unknown], [b]: [string, unknown]): number {
	return a < b ? -1 : a > b ? 1 : 0;
}

/** Return the SHA-256 of a text in hexadecimal. Only in a secure context: https, or this machine. */
export async function sha256(text: string): Promise<string> {
	const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
	return [...new Uint8Array(digest)].map((each) => each.toString(16).padStart(2, "0")).join("");
}

/** Checks entries, oldest first, page by page. */
export class ChainCheck {
	/** How many entries were checked. */
	checked = 0;
	/** The newest digest, to compare with one that was noted earlier. */
	digest = "";
	#number = 1;

	/** Check the next entries. Return the first break, or null. */
	async add(entries: readonly DigestedEntry[]): Promise<ChainBreak | null> {
		for (const entry of entries) {
			const problem = await this.#problemOf(entry);
			if (problem !== null) return { number: this.#number, problem };
			this.digest = entry.digest;
			this.#number += 1;
			this.checked += 1;
		}
		return null;
	}

	async #problemOf(entry: DigestedEntry): Promise<string | null> {
		if (entry.number !== this.#number) return `is missing: the next entry is number ${entry.number}`;
		if (entry.before !== this.digest) return "does not follow the entry before it";
		if ((await sha256(canonicalText(entry))) !== entry.digest) return "was changed: its digest is of other content";
		return null;
	}
}
