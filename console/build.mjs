/**
 * Build the console into src/artcafe/console/static, or into the folder that is named: `node build.mjs FOLDER`. The files are
 * committed, so that the server needs no Node.js, and a test builds them again and compares them byte by byte.
 */

import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild-wasm";
import uglify from "uglify-js";

const here = dirname(fileURLToPath(import.meta.url));
const target = resolve(process.argv[2] ?? join(here, "..", "src", "artcafe", "console", "static"));
const BUNDLED = ["preact", "@preact/signals", "@preact/signals-core", "oauth4webapi"];

/** Leave out the operations of the REST client that no source of the console names: a bundler keeps every method of a class. */
const usedOperations = {
	name: "used-operations",
	setup({ onLoad }) {
		onLoad({ filter: /generated\/rest\.ts$/ }, async ({ path }) => {
			const folder = join(here, "src");
			const names = (await readdir(folder, { recursive: true })).filter((name) => /\.tsx?$/.test(name));
			const sources = (await Promise.all(names.map((name) => readFile(join(folder, name), "utf8")))).join("");
			const [types, operations] = (await readFile(path, "utf8")).split("export abstract class ");
			const methods = operations.split(/(?<=\n\t}\n)/).filter((text) => {
				const name = /\n\t(\w+)\([^]*return this\.send/.exec(text)?.[1];
				return name === undefined || new RegExp(`\\.${name}\\(`).test(sources);
			});
			return { contents: `${types}export abstract class ${methods.join("")}`, loader: "ts" };
		});
	},
};

const { outputFiles } = await build({
	absWorkingDir: here,
	entryPoints: { app: "src/main.tsx" },
	outdir: target,
	bundle: true,
	minify: true,
	format: "esm",
	target: "es2022",
	charset: "utf8",
	tsconfigRaw: {}, // Its "jsx" would win over the three lines below.
	jsx: "transform",
	jsxFactory: "createElement",
	jsxFragment: "Fragment",
	inject: ["src/jsx.ts"],
	legalComments: "none",
	write: false,
	plugins: [usedOperations],
});

/** Return a script as a shorter one: 3 % below what esbuild minifies. */
function shorter(text) {
	// Reading a signal's `value` subscribes to it, so no such read may be moved or left out.
	const { code, error } = uglify.minify(text, { module: true, compress: { passes: 3, pure_getters: false } });
	if (error) throw error;
	return Buffer.from(code);
}

async function notices() {
	const texts = BUNDLED.map(async (name) => {
		const folder = join(here, "node_modules", name);
		const license = await readFile(join(folder, name === "oauth4webapi" ? "LICENSE.md" : "LICENSE"), "utf8");
		return `${name}\n\n${license.trim()}\n`;
	});
	return `The console contains this software:\n\n${(await Promise.all(texts)).join("\n\n")}`;
}

await mkdir(target, { recursive: true });
const files = outputFiles.map(({ path, text, contents }) => ({ path, contents: path.endsWith(".js") ? shorter(text) : contents }));
for (const file of files) await writeFile(file.path, file.contents);
await writeFile(join(target, "index.html"), await readFile(join(here, "src", "index.html")));
await writeFile(join(target, "licenses.txt"), await notices());
for (const file of files) console.log(`${file.path.slice(target.length + 1)} ${file.contents.length} bytes`);
