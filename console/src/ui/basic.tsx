/** Small parts of pages: buttons, badges, times, headings and empty states. */

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

type Tone = "plain" | "good" | "warn" | "bad" | "accent";

interface ButtonProps {
	children: ComponentChildren;
	onClick?: (event: Event) => void;
	kind?: "primary" | "plain" | "danger" | "quiet";
	type?: "button" | "submit";
	disabled?: boolean;
	/** Whether an action is under way, which ignores clicks. The button is not disabled, since it would lose the focus. */
	busy?: boolean;
	label?: string;
}

export function Button({ children, onClick, kind = "plain", type = "button", disabled = false, busy = false, label }: ButtonProps) {
	return (
		<button type={type} class={`button ${kind}`} onClick={onClick} disabled={disabled} aria-disabled={busy} aria-busy={busy} aria-label={label}>
			{children}
		</button>
	);
}

/** A link that looks like a button. */
export function ButtonLink({ children, href, kind = "plain" }: { children: ComponentChildren; href: string; kind?: "primary" | "plain" }) {
	return (
		<a class={`button ${kind}`} href={href}>
			{children}
		</a>
	);
}

export function Badge({ children, tone = "plain" }: { children: ComponentChildren; tone?: Tone }) {
	return <span class={`badge ${tone}`}>{children}</span>;
}

/** Text of the tenant in a fixed-width font: an id, a handle, a fingerprint. */
export function Code({ children }: { children: ComponentChildren }) {
	return <code dir="auto">{children}</code>;
}

/** A name that people chose: its direction is its own, and it is cut where there is no room. */
export function Name({ children, title }: { children: string; title?: string }) {
	return (
		<bdi class="name" title={title ?? children}>
			{children}
		</bdi>
	);
}

const LOCAL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const TODAY = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const UNITS: readonly [Intl.RelativeTimeFormatUnit, number][] = [["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]];

/** The present, updated every 10 s, so that relative times stay true. */
const now = signal(Date.now());
setInterval(() => (now.value = Date.now()), 10_000);

interface TimeProps {
	/** RFC 3339; null shows a dash. */
	at: string | null | undefined;
	/** Show the time since then, such as "5 minutes ago". */
	relative?: boolean;
}

/** A time in the person's zone; its title has it in UTC. */
export function Time({ at, relative = false }: TimeProps) {
	if (at == null) return <span class="faint">–</span>;
	const date = new Date(at);
	if (Number.isNaN(date.getTime())) return <span>{at}</span>;
	const isToday = date.toDateString() === new Date(now.value).toDateString();
	const text = relative ? since(date) : (isToday ? TODAY : LOCAL).format(date);
	return (
		<time dateTime={at} title={`${LOCAL.format(date)} · ${date.toISOString().replace("T", " ").replace("Z", " UTC")}`}>
			{text}
		</time>
	);
}

function since(date: Date): string {
	const seconds = Math.round((date.getTime() - now.value) / 1000);
	const [unit, length] = UNITS.find(([, each]) => Math.abs(seconds) >= each) ?? ["second", 1];
	return seconds > -10 && seconds < 10 ? "just now" : RELATIVE.format(Math.trunc(seconds / length), unit);
}

const NUMBER = new Intl.NumberFormat();

/** A number with the person's separators; a dash if it is unknown. */
export function Count({ of }: { of: number | null | undefined }) {
	return <span class="count">{of == null ? "–" : NUMBER.format(of)}</span>;
}

/** Copy text to the clipboard. */
export function Copy({ text, label = "Copy" }: { text: string; label?: string }) {
	const [done, setDone] = useState<string | null>(null);
	const copy = async () => {
		try {
			await navigator.clipboard.writeText(text);
			setDone("Copied");
		} catch {
			setDone("Not allowed");
		}
		setTimeout(() => setDone(null), 2000);
	};
	return (
		<button type="button" class="button quiet copy" onClick={copy} aria-label={done ?? label}>
			{done ?? "Copy"}
		</button>
	);
}

/** Text to copy: a command, a program. */
export function Snippet({ text, label }: { text: string; label: string }) {
	return (
		<div class="snippet">
			<Copy text={text} label={`Copy ${label}`} />
			<pre tabIndex={0} aria-label={label}>
				{text}
			</pre>
		</div>
	);
}

/** What stands where there is nothing yet. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
	return (
		<div class="empty">
			<h2>{title}</h2>
			{children}
		</div>
	);
}

export function Loading() {
	return (
		<p class="loading" role="status">
			Loading …
		</p>
	);
}

interface HeadProps {
	title: ComponentChildren;
	/** One sentence about the page. */
	note?: ComponentChildren;
	/** Buttons at the right. */
	children?: ComponentChildren;
}

/** The head of a screen. It takes the focus that waits for it in the content. */
export function PageHead({ title, note, children }: HeadProps) {
	const head = useRef<HTMLHeadingElement>(null);
	useEffect(() => {
		if (document.activeElement?.id === "main") head.current?.focus({ preventScroll: true });
	}, []);
	return (
		<header class="page-head">
			<div>
				<h1 ref={head} tabIndex={-1}>{title}</h1>
				{note !== undefined && <p class="note">{note}</p>}
			</div>
			<div class="actions">{children}</div>
		</header>
	);
}

export function Card({ title, children, actions }: { title?: string; children: ComponentChildren; actions?: ComponentChildren }) {
	return (
		<section class="card">
			{title !== undefined && (
				<header>
					<h2>{title}</h2>
					{actions}
				</header>
			)}
			{children}
		</section>
	);
}

/** Pairs of a name and a value. */
export function Facts({ children }: { children: ComponentChildren }) {
	return <dl class="facts">{children}</dl>;
}

export function Fact({ name, children }: { name: string; children: ComponentChildren }) {
	return (
		<div>
			<dt>{name}</dt>
			<dd>{children}</dd>
		</div>
	);
}
