/** The documents of the server: the generated files are theirs, and the AsyncAPI document is valid. */

import assert from "node:assert/strict";
import test from "node:test";

import { Parser } from "@asyncapi/parser";

import { url } from "./support.js";

test("the generated files are those for this server", async () => {
	const { compare } = (await import(new URL("../scripts/generate.mjs", import.meta.url).href)) as { compare: (url: string, write: boolean) => Promise<string[]> };
	assert.deepEqual(await compare(url(), false), [], "stale: run `npm run generate` in clients/typescript");
});

test("the AsyncAPI document is valid for @asyncapi/parser", async () => {
	const parser = new Parser();
	const { document, diagnostics } = await parser.parse(await (await fetch(new URL("/asyncapi.json", url()))).text());
	assert.deepEqual(diagnostics.map(({ message, path }) => `${path.join(".")}: ${message}`), []);
	assert.equal(document?.version(), "3.1.0");
	// The parser does refuse a wrong document.
	const wrong = { asyncapi: "3.1.0", info: { title: "Wrong", version: "1" }, operations: { take: { action: "take" } } };
	assert.notDeepEqual((await parser.parse(JSON.stringify(wrong))).diagnostics, []);
});
