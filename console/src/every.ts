/** Repetition while a page is seen: a hidden page asks the server nothing. */

import { useEffect, useRef } from "preact/hooks";

/** Call a function every `ms` milliseconds while the page is visible, and once when it becomes visible again. */
export function useEvery(ms: number, act: () => void, isActive = true): void {
	const latest = useRef(act);
	latest.current = act;
	useEffect(() => {
		if (!isActive) return undefined;
		const tick = () => {
			if (!document.hidden) latest.current();
		};
		const timer = setInterval(tick, ms);
		document.addEventListener("visibilitychange", tick);
		return () => {
			clearInterval(timer);
			document.removeEventListener("visibilitychange", tick);
		};
	}, [ms, isActive]);
}
