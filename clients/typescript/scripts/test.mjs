// Run the compiled tests against a real server: the one in ARTCAFE_TEST_URL with a person's ARTCAFE_TEST_TOKEN, or an
// `artcafe up` that ends with the tests. Arguments are passed to node.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { withServer } from "./server.mjs";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const TEST_MS = 120_000;

async function runTests(url, token) {
	const folder = join(ROOT, "build");
	const files = (await readdir(folder)).filter((name) => name.endsWith(".test.js")).map((name) => join(folder, name));
	const tests = spawn(process.execPath, ["--test", `--test-timeout=${TEST_MS}`, ...process.argv.slice(2), ...files], {
		stdio: "inherit",
		cwd: ROOT,
		env: { ...process.env, ARTCAFE_TEST_URL: url, ARTCAFE_TEST_TOKEN: token },
	});
	const [code] = await once(tests, "exit");
	return code ?? 1;
}

const { ARTCAFE_TEST_URL: url, ARTCAFE_TEST_TOKEN: token } = process.env;
process.exitCode = url && token ? await runTests(url, token) : await withServer(runTests);
