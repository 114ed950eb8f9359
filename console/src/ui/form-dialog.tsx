/** A dialog with a form, and the question before something that cannot be undone. */

import type { ComponentChildren } from "preact";

import { Button } from "./basic.js";
import { Dialog } from "./dialog.js";
import { Form } from "./field.js";
import { useAction } from "./load.js";
import { Problem } from "./problem.js";

interface FormDialogProps {
	title: string;
	/** The fields, or what happens, in a sentence. */
	children: ComponentChildren;
	/** The word on the button, such as "Delete". */
	action: string;
	kind?: "primary" | "danger";
	/** Do it. The dialog closes, unless this throws or resolves with false: then the form says what is wrong. */
	act: () => Promise<unknown>;
	onClose: () => void;
	disabled?: boolean;
	/** The word on the button that changes nothing. */
	keep?: string;
}

export function FormDialog({ title, children, action, kind = "primary", act, onClose, disabled = false, keep = "Cancel" }: FormDialogProps) {
	const { error, isBusy, run } = useAction();
	const submit = () =>
		run(async () => {
			if ((await act()) !== false) onClose();
		});
	return (
		<Dialog title={title} onClose={onClose}>
			<Form label={title} onSubmit={() => void submit()}>
				{children}
				<Problem error={error} />
				<div class="buttons">
					<Button type="submit" kind={kind} busy={isBusy} disabled={disabled}>
						{action}
					</Button>
					<Button onClick={onClose}>{keep}</Button>
				</div>
			</Form>
		</Dialog>
	);
}

/** Ask before an action. */
export function Confirm(props: FormDialogProps) {
	return <FormDialog kind="danger" {...props} />;
}
