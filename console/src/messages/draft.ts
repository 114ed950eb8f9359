/** A message as a person types it. */

import type { NewMessage } from "../../../clients/typescript/src/generated/rest.js";

export interface Draft {
	/** Whether `data` is JSON; else it is text. */
	isJson: boolean;
	data: string;
	key: string;
	/** One `name: value` a line. */
	headers: string;
	replyTo: string;
}

/** What is wrong, by field. */
export type DraftProblems = Partial<Record<keyof Draft, string>>;

export type Parsed = { message: NewMessage; problems?: undefined } | { message?: undefined; problems: DraftProblems };

/** Return the message to publish, or what is wrong with the fields. */
export function parseDraft(draft: Draft): Parsed {
	const data = parseData(draft);
	const headers = parseHeaders(draft.headers);
	const problems: DraftProblems = {};
	if (typeof data.problem === "string") problems.data = data.problem;
	if (typeof headers === "string") problems.headers = headers;
	if (typeof headers === "string" || Object.keys(problems).length > 0) return { problems };
	const message: NewMessage = { data: data.value };
	if (draft.key.trim() !== "") message.key = draft.key.trim();
	if (Object.keys(headers).length > 0) message.headers = headers;
	if (draft.replyTo.trim() !== "") message.reply_to = draft.replyTo.trim();
	return { message };
}

function parseData({ isJson, data }: Draft): { value?: unknown; problem?: string } {
	if (!isJson) return { value: data };
	try {
		const value = JSON.parse(data) as unknown;
		const long = data.replace(/"(\\.|[^"\\])*"/g, "").match(/(?<![\d.])\d{16,}(?![\d.eE])/g);
		const lost = long?.find((each) => String(Number(each)) !== each);
		return lost === undefined ? { value } : { problem: `A browser would change ${lost}: put it in quotes, or use artcafe publish.` };
	} catch (error) {
		return { problem: `This is not JSON: ${error instanceof Error ? error.message : String(error)}` };
	}
}

/** Return the headers by name, or the first line that is none. */
function parseHeaders(text: string): Record<string, string> | string {
	const headers: [string, string][] = [];
	for (const line of text.split("\n")) {
		if (line.trim() === "") continue;
		const colon = line.indexOf(":");
		if (colon < 1) return `"${line.trim()}" is not of the form name: value`;
		headers.push([line.slice(0, colon).trim(), line.slice(colon + 1).trim()]);
	}
	return Object.fromEntries(headers);
}
