/** Fields of forms: a label, the input, and what is wrong with it. */

import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";

interface FieldProps {
	label: string;
	value: string;
	onInput: (value: string) => void;
	/** A sentence below the field. */
	hint?: ComponentChildren;
	/** What is wrong with the value. */
	problem?: string | null;
	/** The number of lines; more than one makes a text area. */
	lines?: number;
	type?: "text" | "email" | "number" | "datetime-local" | "search";
	placeholder?: string;
	required?: boolean;
	maxLength?: number;
	/** Whether the text is code: a fixed-width font, no correction. */
	code?: boolean;
}

export function Field({ label, value, onInput, hint, problem = null, lines = 1, type = "text", code = false, ...more }: FieldProps) {
	const id = useId();
	const common = {
		id,
		value,
		class: code ? "code" : "",
		spellcheck: !code,
		autocomplete: "off",
		dir: "auto" as const,
		"aria-describedby": `${id}-hint`,
		"aria-invalid": problem !== null,
		...more,
	};
	return (
		<div class="field">
			<label for={id}>{label}</label>
			{lines > 1 ? (
				<textarea {...common} rows={lines} onInput={(event) => onInput(event.currentTarget.value)} />
			) : (
				<input {...common} type={type as "text"} /* Preact has a type for each of them, and none for all. */ onInput={(event) => onInput(event.currentTarget.value)} />
			)}
			<p id={`${id}-hint`} class={problem === null ? "hint" : "hint wrong"}>
				{problem ?? hint}
			</p>
		</div>
	);
}

interface SelectProps<T extends string> {
	label: string;
	value: T;
	options: readonly (readonly [T, string])[];
	onChange: (value: T) => void;
	hint?: ComponentChildren;
}

export function Select<T extends string>({ label, value, options, onChange, hint }: SelectProps<T>) {
	const id = useId();
	return (
		<div class="field">
			<label for={id}>{label}</label>
			<select id={id} value={value} aria-describedby={`${id}-hint`} onChange={(event) => onChange(event.currentTarget.value as T)}>
				{options.map(([option, text]) => (
					<option key={option} value={option}>
						{text}
					</option>
				))}
			</select>
			<p id={`${id}-hint`} class="hint">
				{hint}
			</p>
		</div>
	);
}

interface FormProps {
	children: ComponentChildren;
	onSubmit: () => void;
	label: string;
}

/** A form that never leaves the page. */
export function Form({ children, onSubmit, label }: FormProps) {
	const submit = (event: Event) => {
		event.preventDefault();
		onSubmit();
	};
	return (
		<form onSubmit={submit} aria-label={label}>
			{children}
		</form>
	);
}
