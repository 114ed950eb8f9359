/** Run the tests of the console's modules, bundled into a folder that is removed afterwards. */

import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild-wasm";

const folder = fileURLToPath(new URL("test", import.meta.url));
const out = await mkdtemp(join(tmpdir(), "artcafe-console-"));
try {
	const tests = (await readdir(folder)).filter((name) => name.endsWith(".test.ts"));
	await build({
		entryPoints: tests.map((name) => join(folder, name)),
		outdir: out,
		outExtension: { ".js": ".mjs" },
		bundle: true,
		platform: "node",
		format: "esm",
		target: "node20",
	});
	const run = spawnSync(process.execPath, ["--test", ...tests.map((name) => join(out, name.replace(/ts$/, "mjs")))], { stdio: "inherit" });
	process.exitCode = run.status ?? 1;
} finally {
	await rm(out, { recursive: true });
}
