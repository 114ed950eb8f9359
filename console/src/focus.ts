/** Where the focus goes when the focused element is removed, such as the button of a deleted row. */

/** The element that was focused last, and what it was in. */
let path: readonly EventTarget[] = [];

/** Move the focus from a removed element to the nearest part around it that can have it: its table, its dialog, or the content. */
export function keepFocus(): void {
	document.addEventListener("focusin", (event) => (path = event.composedPath()));
	new MutationObserver(() => {
		if (document.activeElement !== document.body) return;
		const around = path.find((each): each is HTMLElement => each instanceof HTMLElement && each.isConnected);
		if (around !== path[0]) around?.closest<HTMLElement>("[tabindex]")?.focus();
	}).observe(document.body, { childList: true, subtree: true });
}
