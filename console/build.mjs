/**
 * Build the console into src/artcafe/console/static, or into the folder that is named: `node build.mjs FOLDER`. The files are
 * committed, so that the server needs no Node.js, and a test builds them again and compares them byte by byte.
 */

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild-wasm";

const here = dirname(fileURLToPath(import.meta.url));
const target = resolve(process.argv[2] ?? join(here, "..", "src", "artcafe", "console", "static"));
const BUNDLED = ["preact", "@preact/signals", "@preact/signals-core", "oauth4webapi"];

const { outputFiles } = await build({
	absWorkingDir: here,
	entryPoints: { app: "src/main.tsx" },
	outdir: target,
	bundle: true,
	minify: true,
	format: "esm",
	target: "es2022",
	charset: "utf8",
	jsx: "automatic",
	jsxImportSource: "preact",
	legalComments: "none",
	write: false,
});

async function notices() {
	const texts = BUNDLED.map(async (name) => {
		const folder = join(here, "node_modules", name);
		const license = await readFile(join(folder, name === "oauth4webapi" ? "LICENSE.md" : "LICENSE"), "utf8");
		return `${name}\n\n${license.trim()}\n`;
	});
	return `The console contains this software:\n\n${(await Promise.all(texts)).join("\n\n")}`;
}

await mkdir(target, { recursive: true });
for (const file of outputFiles) await writeFile(file.path, file.contents);
await writeFile(join(target, "index.html"), await readFile(join(here, "src", "index.html")));
await writeFile(join(target, "licenses.txt"), await notices());
for (const file of outputFiles) console.log(`${file.path.slice(target.length + 1)} ${file.contents.length} bytes`);
