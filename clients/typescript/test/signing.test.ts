/** Signatures by key files and by ssh-agent, verified by ssh-keygen. */

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { promisify } from "node:util";

import { checkChallenge } from "../dist/challenge.js";
import { keySigner, sshAgentSigner } from "artcafe/node";
import type { Signer } from "artcafe";
import { folder, makeKey } from "./support.js";

const run = promisify(execFile);
const MESSAGE = "artcafe login 1 service=café";
const KINDS = [
	["-t", "ed25519"],
	["-t", "ecdsa", "-b", "256"],
	["-t", "ecdsa", "-b", "384"],
	["-t", "ecdsa", "-b", "521"],
	["-t", "rsa", "-b", "2048"],
];

/** Return whether ssh-keygen accepts a signature of the message by this key. */
async function isAccepted(place: string, signer: Signer, message = MESSAGE): Promise<boolean> {
	await writeFile(join(place, "allowed"), `agent ${signer.publicKey}\n`);
	await writeFile(join(place, "signature"), await signer.sign(message));
	const verifying = run("ssh-keygen", ["-Y", "verify", "-f", join(place, "allowed"), "-I", "agent", "-n", "artcafe", "-s", join(place, "signature")]);
	verifying.child.stdin?.end(MESSAGE);
	return verifying.then(
		() => true,
		() => false,
	);
}

for (const kind of KINDS) {
	test(`ssh-keygen accepts the signature of a key of ${kind.join(" ")}, in both formats`, async (t) => {
		const place = await folder(t);
		const path = await makeKey(place, kind);
		const signer = await keySigner(path);
		assert.equal(signer.publicKey, (await readFile(`${path}.pub`, "utf8")).split(" ").slice(0, 2).join(" "));
		assert.ok(await isAccepted(place, signer));
		assert.ok(!(await isAccepted(place, signer, `${MESSAGE}.`)));
		if (kind[1] === "ed25519") return; // ssh-keygen has no PEM format for it.
		await run("ssh-keygen", ["-q", "-p", "-N", "", "-m", "PKCS8", "-f", path]);
		assert.match(await readFile(path, "utf8"), /BEGIN PRIVATE KEY/);
		assert.ok(await isAccepted(place, await keySigner(path)));
	});
}

test("every signature of an ECDSA key is valid, whatever the leading bits of its numbers", async (t) => {
	const place = await folder(t);
	const signer = await keySigner(await makeKey(place, ["-t", "ecdsa", "-b", "256"]));
	for (let count = 0; count < 12; count += 1) assert.ok(await isAccepted(place, signer));
});

test("an unusable key is refused with its reason", async (t) => {
	const place = await folder(t);
	const write = async (name: string, text: string): Promise<string> => {
		await writeFile(join(place, name), text, { mode: 0o600 });
		return join(place, name);
	};
	const locked = await makeKey(place, ["-t", "ed25519"], "secret");
	await assert.rejects(keySigner(locked), { code: "key_locked", message: /has a passphrase.*ssh-add/ });
	const locked8 = await makeKey(place, ["-t", "rsa", "-b", "2048", "-m", "PKCS8"], "secret");
	await assert.rejects(keySigner(locked8), { code: "key_locked" });
	await assert.rejects(keySigner(join(place, "missing")), { code: "key_unusable", message: /missing cannot be read: ENOENT/ });
	await assert.rejects(keySigner(place), { code: "key_unusable", message: /cannot be read: EISDIR/ });
	await assert.rejects(keySigner(await readFile(locked, "utf8")), { code: "key_unusable", message: /pass the path/ });
	await assert.rejects(keySigner(await write("text", "hello")), { code: "key_unusable", message: /no private key/ });
	await assert.rejects(keySigner(await write("large", "-----BEGIN".padEnd(70_000, "x"))), { code: "key_unusable", message: /too large/ });
	const whole = await readFile(await makeKey(place, ["-t", "ecdsa", "-b", "256"]), "utf8");
	const damaged = await write("damaged", whole.replace(/\n[^\n]{40}/, "\n"));
	await assert.rejects(keySigner(damaged), { code: "key_unusable", message: /damaged/ });
});

test("a key file that others can read is warned of", { skip: process.getuid === undefined }, async (t) => {
	const path = await makeKey(await folder(t));
	let warnings = "";
	const log = (text: string): void => void (warnings += text);
	await keySigner(path, { log });
	assert.equal(warnings, "");
	await chmod(path, 0o644);
	await keySigner(path, { log });
	assert.match(warnings, /mode 644\): chmod 600/);
});

test("ssh-agent signs for the keys that it holds", async (t) => {
	const place = await folder(t);
	const socketPath = join(place, "agent");
	const agent = spawn("ssh-agent", ["-D", "-a", socketPath], { stdio: ["ignore", "pipe", "ignore"] });
	t.after(() => agent.kill());
	await new Promise<void>((resolve) => agent.stdout.once("data", () => resolve()));
	for (const kind of [KINDS[0] ?? [], KINDS[1] ?? [], KINDS[4] ?? []]) {
		const path = await makeKey(place, kind);
		const signer = await sshAgentSigner(`${path}.pub`, { socketPath });
		await assert.rejects(signer.sign(MESSAGE), { code: "key_unusable", message: /does not hold/ });
		await run("ssh-add", ["-q", path], { env: { ...process.env, SSH_AUTH_SOCK: socketPath } });
		assert.ok(await isAccepted(place, signer));
		assert.ok(await isAccepted(place, await sshAgentSigner(await readFile(`${path}.pub`, "utf8"), { socketPath })));
	}
});

test("an ssh-agent that is not there is named", async (t) => {
	const place = await folder(t);
	const path = await makeKey(place);
	const signer = await sshAgentSigner(`${path}.pub`, { socketPath: join(place, "nobody") });
	await assert.rejects(signer.sign(MESSAGE), { code: "key_unusable", message: /no valid answer from ssh-agent at .*nobody.*ENOENT/ });
	const found = process.env["SSH_AUTH_SOCK"];
	delete process.env["SSH_AUTH_SOCK"];
	t.after(() => {
		if (found !== undefined) process.env["SSH_AUTH_SOCK"] = found;
	});
	await assert.rejects(keySigner(`${path}.pub`), { code: "key_unusable", message: /SSH_AUTH_SOCK is not set/ });
});

test("only a login of this agent at this service is signed", () => {
	const text = (changed: Record<string, string> = {}): string => {
		const fields = { service: "artcafe:test", tenant: "ten_1", agent: "a%20b", challenge: "chl_1", nonce: "0f".repeat(32), expires: "2026-11-28T12:05:00Z", ...changed };
		return `artcafe login 1 ${Object.entries(fields).map(([name, value]) => `${name}=${value}`).join(" ")}`;
	};
	const expected = { tenant: "ten_1", agent: "a b", challenge: "chl_1" };
	assert.equal(checkChallenge(text(), expected), "artcafe:test");
	assert.equal(checkChallenge(text(), { ...expected, service: "artcafe:test" }), "artcafe:test");
	const refused = { code: "challenge_refused" };
	assert.throws(() => checkChallenge(text(), { ...expected, service: "artcafe:other" }), refused);
	const wrong: Record<string, string>[] = [{ tenant: "ten_2" }, { agent: "b" }, { agent: "%ff" }, { challenge: "chl_2" }, { nonce: "0f" }];
	for (const changed of wrong) {
		assert.throws(() => checkChallenge(text(changed), expected), refused, JSON.stringify(changed));
	}
	for (const other of ["", "hello", `${text()}\n`, `${text()} more=1`, ` ${text()}`]) assert.throws(() => checkChallenge(other, expected), refused);
});
