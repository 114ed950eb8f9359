/** Reading key files. */

import { open } from "node:fs/promises";

import { keyUnusable } from "../errors.js";

/** An RSA key of 16384 bits is a file of 13 KB. The limit ends the reading of a wrong path, such as a device. */
const MAX_FILE_BYTES = 65_536;

/** Return the text of a key file. Rejects with `key_unusable`. */
export async function readKey(path: string): Promise<string> {
	if (path.includes("-----BEGIN")) throw keyUnusable("this is the text of a key; pass the path of its file");
	try {
		const file = await open(path);
		try {
			const { buffer, bytesRead } = await file.read({ buffer: Buffer.alloc(MAX_FILE_BYTES + 1) });
			if (bytesRead > MAX_FILE_BYTES) throw keyUnusable(`${path} is too large for a key`);
			return buffer.subarray(0, bytesRead).toString("latin1");
		} finally {
			await file.close();
		}
	} catch (error) {
		const code = error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
		if (code.startsWith("E")) throw keyUnusable(`${path} cannot be read: ${code}`, error);
		throw error;
	}
}
