/** The data types of SSH (RFC 4251, section 5). */

/** Return the bytes as an SSH string. */
export function string(bytes: Uint8Array | string): Buffer {
	const content = Buffer.from(bytes);
	return Buffer.concat([uint32(content.length), content]);
}

export function uint32(value: number): Buffer {
	const bytes = Buffer.alloc(4);
	bytes.writeUInt32BE(value);
	return bytes;
}

/** Return the content of an mpint: without leading zeros, but with one before a set high bit. */
export function mpint(unsigned: Uint8Array): Buffer {
	const first = unsigned.findIndex((byte) => byte !== 0);
	const bytes = first === -1 ? Buffer.alloc(0) : Buffer.from(unsigned.subarray(first));
	return string((bytes[0] ?? 0) & 0x80 ? Buffer.concat([Buffer.of(0), bytes]) : bytes);
}

/** Reads SSH data from the beginning. Throws RangeError at its end. */
export class SshReader {
	#at = 0;

	constructor(readonly bytes: Buffer) {}

	take(size: number): Buffer {
		if (this.#at + size > this.bytes.length) throw new RangeError("the data ends early");
		this.#at += size;
		return this.bytes.subarray(this.#at - size, this.#at);
	}

	uint32(): number {
		return this.take(4).readUInt32BE();
	}

	string(): Buffer {
		return this.take(this.uint32());
	}

	text(): string {
		return this.string().toString("latin1");
	}
}
