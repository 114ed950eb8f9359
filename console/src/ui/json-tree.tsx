/** A JSON value as a tree. Every part of it is a text node. */

import { useState } from "preact/hooks";

import { jsonOf } from "../json.js";

/** Children that are shown at once; the rest on demand. */
const CHUNK = 100;
const LONG_TEXT = 400;

interface JsonTreeProps {
	value: unknown;
	/** The levels that are open at first. */
	open?: number;
}

export function JsonTree({ value, open = 2 }: JsonTreeProps) {
	return (
		<div class="json">
			<Node value={value} name={null} open={open} />
		</div>
	);
}

interface NodeProps {
	value: unknown;
	name: string | null;
	open: number;
}

function Node({ value, name, open }: NodeProps) {
	if (value === null || typeof value !== "object") return <Leaf value={value} name={name} />;
	return <Branch value={value} name={name} open={open} />;
}

function Leaf({ value, name }: { value: unknown; name: string | null }) {
	const [isWhole, setWhole] = useState(false);
	const text = jsonOf(value);
	const isCut = text.length > LONG_TEXT && !isWhole;
	return (
		<div class="leaf">
			<Key name={name} />
			<span class={value === null ? "null" : typeof value} dir="auto">
				{isCut ? `${text.slice(0, LONG_TEXT)}…` : text}
			</span>
			{isCut && (
				<button type="button" class="button quiet" onClick={() => setWhole(true)}>
					all {text.length} characters
				</button>
			)}
		</div>
	);
}

function Branch({ value, name, open }: { value: object; name: string | null; open: number }) {
	const [isOpen, setOpen] = useState(open > 0);
	const [shown, setShown] = useState(CHUNK);
	const isList = Array.isArray(value);
	const entries = Object.entries(value);
	const size = `${isList ? "[" : "{"}${entries.length}${isList ? "]" : "}"}`;
	return (
		<details open={isOpen} onToggle={(event) => setOpen(event.currentTarget.open)}>
			<summary>
				<Key name={name} />
				<span class="faint">{size}</span>
			</summary>
			{isOpen && entries.slice(0, shown).map(([key, each]) => <Node key={key} value={each} name={isList ? null : key} open={open - 1} />)}
			{isOpen && entries.length > shown && (
				<button type="button" class="button quiet" onClick={() => setShown(shown + CHUNK)}>
					{entries.length - shown} more
				</button>
			)}
		</details>
	);
}

function Key({ name }: { name: string | null }) {
	if (name === null) return null;
	return (
		<span class="key" dir="auto">
			{name}
			{": "}
		</span>
	);
}
