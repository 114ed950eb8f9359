/** A dialog with a form: it closes after the form was accepted. */

import type { ComponentChildren } from "preact";

import { Button } from "./basic.js";
import { Dialog } from "./dialog.js";
import { Form } from "./field.js";
import { useAction } from "./load.js";
import { Problem } from "./problem.js";

interface FormDialogProps {
	title: string;
	children: ComponentChildren;
	/** The word on the button, such as "Save". */
	action: string;
	/** Do it. The dialog closes, unless this throws or resolves with false: then the form says what is wrong. */
	act: () => Promise<unknown>;
	onClose: () => void;
	disabled?: boolean;
}

export function FormDialog({ title, children, action, act, onClose, disabled = false }: FormDialogProps) {
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
					<Button type="submit" kind="primary" busy={isBusy} disabled={disabled}>
						{action}
					</Button>
					<Button onClick={onClose}>Cancel</Button>
				</div>
			</Form>
		</Dialog>
	);
}
