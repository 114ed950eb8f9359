/** The field for a public key: pasted, dropped or chosen as a file. A private key is not kept, and never sent. */

import { useState } from "preact/hooks";

import { IS_PRIVATE, isPrivateKey, keyProblem, MAX_BYTES } from "./public-key.js";
import { Field } from "./ui/index.js";

interface KeyFieldProps {
	value: string;
	onInput: (value: string) => void;
}

export function KeyField({ value, onInput }: KeyFieldProps) {
	const [refused, setRefused] = useState<string | null>(null);
	const [isOver, setOver] = useState(false);
	const take = (text: string) => {
		const isPrivate = isPrivateKey(text);
		if (isPrivate) setRefused(IS_PRIVATE);
		else if (text.trim() !== "") setRefused(null); // An emptied field keeps the warning.
		onInput(isPrivate ? "" : text);
	};
	const read = async (file: File | undefined) => {
		if (file === undefined) return;
		if (file.size > MAX_BYTES) setRefused(`${file.name} is not a .pub file: it has ${file.size} bytes.`);
		else take(await file.text());
	};
	const drop = (event: DragEvent) => {
		event.preventDefault();
		setOver(false);
		void read(event.dataTransfer?.files[0]);
	};
	const over = (event: DragEvent) => {
		event.preventDefault();
		setOver(true);
	};
	return (
		<div class={isOver ? "drop over" : "drop"} onDrop={drop} onDragOver={over} onDragLeave={() => setOver(false)}>
			<Field
				label="Public key"
				value={value}
				onInput={take}
				lines={3}
				code
				required
				problem={refused ?? keyProblem(value)}
				hint="Paste the line of the .pub file, or drop the file here."
				placeholder="ssh-ed25519 AAAA…"
			/>
			<label class="button plain file">
				Choose a file
				<input type="file" onChange={(event) => void read(event.currentTarget.files?.[0])} />
			</label>
		</div>
	);
}
