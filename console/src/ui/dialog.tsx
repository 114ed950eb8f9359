/** A dialog above the page. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { Button } from "./basic.js";

interface DialogProps {
	title: string;
	children: ComponentChildren;
	/** Called for Escape and the close button; without it the dialog stays. */
	onClose?: () => void;
}

/** The browser's own modal dialog: it keeps the focus inside, begins in its first field, and gives the focus back. */
export function Dialog({ title, children, onClose }: DialogProps) {
	const element = useRef<HTMLDialogElement>(null);
	useEffect(() => {
		const opener = document.activeElement as HTMLElement | null;
		element.current?.showModal();
		element.current?.querySelector<HTMLElement>("input, textarea")?.focus();
		return () => opener?.focus();
	}, []);
	// A handler of `cancel` cannot keep a dialog open: Chromium asks it once, and one Escape can close the dialog below too.
	const stay = (event: KeyboardEvent) => onClose === undefined && event.key === "Escape" && event.preventDefault();
	return (
		<dialog ref={element} onClose={onClose} onKeyDown={stay} tabIndex={-1} aria-label={title}>
			<header>
				<h2>{title}</h2>
				{onClose !== undefined && (
					<Button kind="quiet" onClick={onClose} label="Close">
						✕
					</Button>
				)}
			</header>
			{children}
		</dialog>
	);
}
