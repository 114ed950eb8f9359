/** The package as others install it: its exports, its types, and its size in a browser. */

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";
import { publint } from "publint";
import { formatMessage } from "publint/utils";

import { agentToken } from "artcafe";
import { folder, owner, Tenant, url, WAIT_MS } from "./support.js";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const MAX_GZIP_BYTES = 20_000;
const run = promisify(execFile);

interface Manifest {
	dependencies?: object;
	exports: Record<string, unknown>;
}

const manifest = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8")) as Manifest;

test("the package has no runtime dependency, and its lock names no registry", async () => {
	assert.equal(manifest.dependencies, undefined);
	const lock = JSON.parse(await readFile(join(ROOT, "package-lock.json"), "utf8")) as { packages: Record<string, { resolved?: string; integrity?: string }> };
	for (const [name, { resolved, integrity }] of Object.entries(lock.packages)) {
		assert.equal(resolved, undefined, name);
		assert.ok(name === "" || integrity, `${name} has no hash`);
	}
});

test("publint has nothing to say about the package", async () => {
	const { messages } = await publint({ pkgDir: ROOT, strict: true, pack: false });
	assert.deepEqual(messages.map((message) => formatMessage(message, manifest)), []);
});

test("the types resolve for every ES module (attw)", async (t) => {
	const place = await folder(t);
	const { stdout } = await run("npm", ["pack", "--silent", "--pack-destination", place], { cwd: ROOT });
	const attw = join(dirname(createRequire(import.meta.url).resolve("@arethetypeswrong/cli/package.json")), "dist/index.js");
	// It exits with 1 for a problem. CommonJS is not supported, and resolution without `exports` neither.
	await run(process.execPath, [attw, join(place, stdout.trim()), "--profile", "esm-only", "--format", "ascii"]);
	const { stdout: files } = await run("tar", ["-tf", join(place, stdout.trim())]);
	assert.match(files, /package\/dist\/index\.js/);
	assert.doesNotMatch(files, /test|scripts|src\//);
});

/** Return the bundle of a program for browsers, minified. */
async function bundle(source: string): Promise<string> {
	const { outputFiles } = await build({
		stdin: { contents: source, resolveDir: ROOT },
		bundle: true,
		minify: true,
		format: "esm",
		platform: "browser",
		target: "es2022",
		write: false,
	});
	return outputFiles[0]?.text ?? "";
}

test("a browser's bundle has nothing of Node.js, and is small", async (t) => {
	for (const name of ["Agent", "Client"]) {
		const text = await bundle(`import { ${name} } from "artcafe"; console.log(${name});`);
		assert.doesNotMatch(text, /node:/);
		const gzipped = gzipSync(text).length;
		t.diagnostic(`${name} in a browser: ${text.length} bytes, ${gzipped} with gzip`);
		assert.ok(gzipped < MAX_GZIP_BYTES);
	}
});

test("the browser's bundle publishes and receives over the WebSocket of the platform", async (t) => {
	const tenant = await Tenant.create(t);
	const token = await agentToken({ url: url(), tenant: tenant.id, agent: "page", signer: await tenant.signer("page") })();
	const gateway = (await owner().readHome()).gateway_url;
	const program = join(await folder(t), "page.mjs");
	await writeFile(
		program,
		await bundle(`
			import { Agent } from "artcafe";
			const agent = await Agent.connect({ url: ${JSON.stringify(gateway)}, token: ${JSON.stringify(token)} });
			await agent.publish("@page", "hello");
			for await (const message of agent.messages("@")) {
				message.ack();
				await agent.close();
				console.log(message.data);
			}
		`),
	);
	// Node.js 20 has the WebSocket of browsers behind a flag.
	const page = spawn(process.execPath, ["--experimental-websocket", "--no-warnings", program], { stdio: ["ignore", "pipe", "inherit"], timeout: WAIT_MS });
	let printed = "";
	for await (const chunk of page.stdout) printed += String(chunk);
	assert.equal(printed, "hello\n");
});
