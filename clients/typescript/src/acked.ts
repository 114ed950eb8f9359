/**
 * The acknowledged messages of a channel, in any order: those up to `through`, and runs above it.
 *
 * Sequences of a channel skip numbers, so a message is identified by its own sequence and that of the message before it. A run
 * of any length is one entry: memory grows with the number of holes.
 */
export class Acked {
	through = 0;
	/** The last sequence of each run above `through`, by the sequence before its first. */
	readonly #ends = new Map<number, number>();
	/** The sequence before the first of each run, by its last sequence. */
	readonly #begins = new Map<number, number>();

	/** Acknowledge the message `seq`, the successor of `before`. Call it once for each message. */
	add(before: number, seq: number): void {
		if (seq <= this.through) return;
		const end = this.#ends.get(seq) ?? seq;
		this.#ends.delete(seq);
		this.#begins.delete(end);
		if (before <= this.through) {
			this.through = end;
			return;
		}
		const begin = this.#begins.get(before) ?? before;
		this.#begins.delete(before);
		this.#ends.set(begin, end);
		this.#begins.set(end, begin);
	}

	/** Acknowledge every message up to `seq`. */
	addAll(seq: number): void {
		let through = seq;
		for (const [begin, end] of [...this.#ends].sort(([a], [b]) => a - b)) {
			if (begin > through) break;
			through = Math.max(through, end);
			this.#ends.delete(begin);
			this.#begins.delete(end);
		}
		this.through = Math.max(this.through, through);
	}

	/** Forget all: messages up to `through` count as acknowledged, and no others. */
	reset(through: number): void {
		this.through = through;
		this.#ends.clear();
		this.#begins.clear();
	}
}
