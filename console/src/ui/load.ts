/** Reading from the server while a screen is shown. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import type { ArtcafeError } from "../../../clients/typescript/src/errors.js";
import { problemOf } from "./problem.js";

/** After a failure that may pass, such as a server that is restarted. */
const RETRY_MS = 5_000;

export interface Loaded<T> {
	/** The last value that was read; null before the first. */
	value: T | null;
	error: ArtcafeError | null;
	isLoading: boolean;
	/** Read again; the value stays until the new one is here. */
	reload: () => void;
	/** Replace the value by one that the server has just answered. */
	set: (value: T) => void;
}

/** Read a value with the first rendering, after each change of `inputs`, and again after a failure that may pass. */
export function useLoad<T>(read: (signal: AbortSignal) => Promise<T>, inputs: readonly unknown[]): Loaded<T> {
	const [value, setValue] = useState<T | null>(null);
	const [error, setError] = useState<ArtcafeError | null>(null);
	const [isLoading, setLoading] = useState(true);
	const [round, setRound] = useState(0);
	useEffect(() => {
		const abort = new AbortController();
		setLoading(true);
		read(abort.signal).then(
			(found) => {
				if (abort.signal.aborted) return;
				setValue(found);
				setError(null);
				setLoading(false);
			},
			(problem: unknown) => {
				if (abort.signal.aborted) return;
				const error = problemOf(problem);
				setError(error);
				setLoading(false);
				if (error.isTemporary) setTimeout(reload, RETRY_MS);
			},
		);
		return () => abort.abort();
	}, [...inputs, round]);
	const reload = useCallback(() => setRound((last) => last + 1), []);
	return { value, error, isLoading, reload, set: setValue };
}

export interface Page<T> {
	items: T[];
	next_cursor: string | null;
}

export interface Pages<T> extends Loaded<T[]> {
	items: T[];
	hasMore: boolean;
	/** Read the next page. The table calls it near its end. */
	loadMore: () => void;
}

/** Read a list page by page: the first at once, and each further one on `loadMore`. */
export function usePages<T>(read: (cursor: string | null, signal: AbortSignal) => Promise<Page<T>>, inputs: readonly unknown[]): Pages<T> {
	const next = useRef<string | null>(null);
	const isReading = useRef(false);
	const first = useLoad(async (signal) => {
		const page = await read(null, signal);
		next.current = page.next_cursor;
		return page.items;
	}, inputs);
	const [error, setError] = useState<ArtcafeError | null>(null);
	const items = first.value ?? [];
	const loadMore = () => {
		if (next.current === null || isReading.current) return;
		isReading.current = true;
		const cursor = next.current;
		read(cursor, new AbortController().signal)
			.then((page) => {
				if (next.current !== cursor) return; // The list was read anew meanwhile.
				next.current = page.next_cursor;
				first.set([...items, ...page.items]);
			})
			.catch((problem: unknown) => setError(problemOf(problem)))
			.finally(() => (isReading.current = false));
	};
	return { ...first, items, error: first.error ?? error, hasMore: next.current !== null, loadMore };
}

export interface Action {
	error: ArtcafeError | null;
	isBusy: boolean;
	/** Do it, unless it is under way. Resolves with whether it succeeded. */
	run: (act: () => Promise<void>) => Promise<boolean>;
	clear: () => void;
}

/** Change something: the button is busy meanwhile, and a refusal is shown. */
export function useAction(): Action {
	const [error, setError] = useState<ArtcafeError | null>(null);
	const [isBusy, setBusy] = useState(false);
	const run = async (act: () => Promise<void>): Promise<boolean> => {
		if (isBusy) return false;
		setBusy(true);
		setError(null);
		try {
			await act();
			return true;
		} catch (problem) {
			setError(problemOf(problem));
			return false;
		} finally {
			setBusy(false);
		}
	};
	return { error, isBusy, run, clear: () => setError(null) };
}
