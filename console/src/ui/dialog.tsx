/** A dialog above the page, and the question before something that cannot be undone. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { Button } from "./basic.js";
import { useAction } from "./load.js";
import { Problem } from "./problem.js";

interface DialogProps {
	title: string;
	children: ComponentChildren;
	/** Called for Escape and the close button; without it the dialog stays. */
	onClose?: () => void;
}

/** The browser's own modal dialog: it keeps the focus inside, and gives it back. */
export function Dialog({ title, children, onClose }: DialogProps) {
	const element = useRef<HTMLDialogElement>(null);
	useEffect(() => {
		const dialog = element.current;
		dialog?.showModal();
		return () => dialog?.close();
	}, []);
	const onCancel = (event: Event) => {
		event.preventDefault();
		onClose?.();
	};
	return (
		<dialog ref={element} onCancel={onCancel} aria-label={title}>
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

interface ConfirmProps {
	title: string;
	/** What happens, in a sentence. */
	children: ComponentChildren;
	/** The word on the button, such as "Delete". */
	action: string;
	act: () => Promise<void>;
	onClose: () => void;
	/** The word on the button that changes nothing. */
	keep?: string;
}

/** Ask before an action. The dialog closes after it has succeeded. */
export function Confirm({ title, children, action, act, onClose, keep = "Cancel" }: ConfirmProps) {
	const { error, isBusy, run } = useAction();
	const confirm = async () => {
		if (await run(act)) onClose();
	};
	return (
		<Dialog title={title} onClose={onClose}>
			{children}
			<Problem error={error} />
			<div class="buttons">
				<Button kind="danger" busy={isBusy} onClick={confirm}>
					{action}
				</Button>
				<Button onClick={onClose}>{keep}</Button>
			</div>
		</Dialog>
	);
}
