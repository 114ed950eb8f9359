/** A condition to wait for: every waiter continues at the next `notify`. */
export class Notice {
	readonly #waiters = new Set<() => void>();

	/** Resolve at the next `notify`, after `timeoutMs`, or when the signal aborts. */
	wait(timeoutMs?: number, signal?: AbortSignal): Promise<void> {
		return new Promise((resolve) => {
			const done = (): void => {
				clearTimeout(timer);
				this.#waiters.delete(done);
				signal?.removeEventListener("abort", done);
				resolve();
			};
			const timer = timeoutMs === undefined ? undefined : setTimeout(done, timeoutMs);
			signal?.addEventListener("abort", done);
			this.#waiters.add(done);
			if (signal?.aborted) done();
		});
	}

	notify(): void {
		for (const each of [...this.#waiters]) each();
	}
}
