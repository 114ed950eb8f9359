// An `artcafe up` of the repository on free ports, for tests and for the generator.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

/** The command: another one may be named in the variable ARTCAFE. */
const ARTCAFE = process.env.ARTCAFE ?? fileURLToPath(new URL("../../../.venv/bin/artcafe", import.meta.url));
const START_MS = 60_000;

/** Run `use(url, token)` with a server, which ends with it; `token` is a person's. Return its result. */
export async function withServer(use) {
	const folder = await mkdtemp(join(tmpdir(), "artcafe-typescript-"));
	const at = (name) => [name, "127.0.0.1:0"];
	const server = spawn(ARTCAFE, ["up", "--data-dir", folder, ...at("--listen"), ...at("--gateway-listen"), ...at("--metrics-listen")], { stdio: "ignore" });
	const ended = once(server, "exit");
	try {
		const url = await addressOf(server, join(folder, "server.json"));
		const { stdout } = await promisify(execFile)(ARTCAFE, ["token", "--user", "typescript@example.com", "--data-dir", folder]);
		return await use(url, stdout.trim());
	} finally {
		server.kill("SIGINT");
		await ended;
		await rm(folder, { recursive: true, force: true });
	}
}

/** Wait until the server has written its address. */
async function addressOf(server, file) {
	const until = Date.now() + START_MS;
	for (;;) {
		const found = await readFile(file, "utf8").then(JSON.parse, () => undefined);
		if (found !== undefined) return found.url;
		if (server.exitCode !== null || Date.now() > until) throw new Error(`${ARTCAFE} up did not start`);
		await sleep(20);
	}
}
