/** JSON as text to look at. */

/** Return a value as JSON, with escapes for the characters that would show the text after them in another order. */
export function jsonOf(value: unknown): string {
	return (JSON.stringify(value) ?? String(value)).replace(/[\u202a-\u202e\u2066-\u2069]/g, (each) => `\\u${each.charCodeAt(0).toString(16)}`);
}
