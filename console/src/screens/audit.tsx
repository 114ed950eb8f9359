/** The audit of the tenant: who did what, and what was refused. */

import { useRef, useState } from "preact/hooks";

import type { DigestedEntry } from "../../../clients/typescript/src/generated/rest.js";
import { ChainCheck } from "../audit/digest-chain.js";
import { readPage } from "../audit/entries.js";
import { parsePlace, SEEK_HELP } from "../messages/seek.js";
import { named, useNames } from "../names.js";
import { location, setQuery } from "../router.js";
import { client, tenantId } from "../session.js";
import { Badge, Button, type Column, Copy, Count, Dialog, Field, JsonTree, List, Name, PageHead, Problem, Select, Time, useAction, usePages } from "../ui/index.js";

const OUTCOMES = [["", "every outcome"], ["done", "done"], ["refused", "refused"], ["unknown", "unknown"], ["intended", "intended"]] as const;
const ACTIONS = [
	["", "every action"],
	["agent.login", "logins of agents"],
	["member.connect", "connections of people"],
	["access.refused", "refused operations"],
	["tenant.trespass", "attempts from outside"],
	["agent", "agents"],
	["channel", "channels"],
	["subscription", "subscriptions"],
	["member", "members"],
	["invitation", "invitations"],
	["chain", "loop guard"],
	["tenant", "the organisation"],
] as const;

type Text<T extends readonly (readonly [string, string])[]> = T[number][0];

/** Return a query value that is one of the options, else the first. */
function chosen<T extends string>(options: readonly (readonly [T, string])[], value: string | null): T {
	return (options.find(([option]) => option === value) ?? options[0])?.[0] as T;
}

export function AuditScreen() {
	const { query } = location.value;
	const action = chosen<Text<typeof ACTIONS>>(ACTIONS, query.get("action"));
	const outcome = chosen<Text<typeof OUTCOMES>>(OUTCOMES, query.get("outcome"));
	const agent = query.get("agent") ?? "";
	const since = query.get("since") ?? "";
	const from = parsePlace(since, new Date(), false);
	const names = useNames();
	const [opened, setOpened] = useState<DigestedEntry | null>(null);
	const entries = usePages(
		(cursor, signal) => {
			const filter = { ...(action === "" ? {} : { action }), ...(agent === "" ? {} : { agent }), ...(from?.kind === "time" ? { since: from.time } : {}) };
			return readPage(filter, (entry) => outcome === "" || entry.outcome === outcome, cursor, signal);
		},
		[tenantId(), action, outcome, agent, since],
	);
	return (
		<>
			<PageHead title="Audit" note="Every change, login and refused attempt. It cannot be changed: each entry seals the one before it.">
				<Button onClick={() => setQuery({ action: "agent.login", outcome: "refused", agent: null })}>Refused logins</Button>
				<Button onClick={() => setQuery({ action: null, outcome: null, agent: null, since: null })}>Everything</Button>
			</PageHead>
			<Check />
			<div class="filters">
				<Select label="Action" value={action} options={ACTIONS} onChange={(value) => setQuery({ action: value })} />
				<Select label="Outcome" value={outcome} options={OUTCOMES} onChange={(value) => setQuery({ outcome: value })} />
				<Field label="By or about" value={agent} onInput={(value) => setQuery({ agent: value.trim() })} code placeholder="agt_… or usr:…" />
				<Field
					label="Since"
					value={since}
					onInput={(value) => setQuery({ since: value })}
					code
					placeholder="2h, 14:30, 2026-11-28"
					problem={since !== "" && from?.kind !== "time" ? `Type ${SEEK_HELP.replace("a sequence (42), ", "").replace(", first or last", "")}.` : null}
				/>
			</div>
			<List label="Audit entries, newest first" pages={entries} columns={columnsOf(names, setOpened)} rowKey={(each) => each.number} empty="No entries match" />
			{opened !== null && (
				<Dialog title={`Entry ${opened.number}`} onClose={() => setOpened(null)}>
					<Copy text={JSON.stringify(opened, null, 2)} label="Copy the entry" />
					<JsonTree value={opened} />
				</Dialog>
			)}
		</>
	);
}

const TONES = { done: "good", refused: "bad", unknown: "warn", intended: "plain" } as const;

function columnsOf(names: ReadonlyMap<string, string>, onOpen: (entry: DigestedEntry) => void): Column<DigestedEntry>[] {
	return [
		{ title: "No.", align: "end", minor: true, cell: (each) => <Count of={each.number} /> },
		{ title: "Time", cell: (each) => <Time at={each.time} /> },
		{
			title: "Action",
			cell: (each) => (
				<button type="button" class="row-button" onClick={() => onOpen(each)}>
					{each.action}
				</button>
			),
		},
		{ title: "Outcome", cell: (each) => <Badge tone={TONES[each.outcome]}>{each.outcome}</Badge> },
		{ title: "By", cell: (each) => <Name>{named(names, each.actor)}</Name> },
		{ title: "About", minor: true, cell: (each) => (each.target === null ? null : <Name>{named(names, each.target)}</Name>) },
		{ title: "Facts", minor: true, cell: (each) => <Name>{factsOf(each, names)}</Name> },
		{ title: "Address", minor: true, cell: (each) => each.address },
	];
}

function factsOf(entry: DigestedEntry, names: ReadonlyMap<string, string>): string {
	return Object.entries(entry.facts).map(([name, value]) => `${name} ${named(names, value)}`).join(", ");
}

/** Check every entry's digest in the page itself. */
function Check() {
	const { error, isBusy, run } = useAction();
	const [result, setResult] = useState<{ text: string; isGood: boolean } | null>(null);
	const isStopped = useRef(false);
	const check = () => {
		isStopped.current = false;
		setResult(null);
		void run(async () => {
			const chain = new ChainCheck();
			let cursor: string | null = null;
			do {
				const page: { items: DigestedEntry[]; next_cursor: string | null } = await client.listAudit(tenantId(), { order: "oldest", limit: 200, cursor });
				const found = await chain.add(page.items);
				if (found !== null) {
					setResult({ isGood: false, text: `The chain is broken: entry ${found.number} ${found.problem}.` });
					return;
				}
				cursor = page.next_cursor;
				setResult({ isGood: cursor === null, text: cursor === null ? `All ${chain.checked} entries are unchanged. The newest digest is ${chain.digest}` : `${chain.checked} entries checked` });
			} while (cursor !== null && !isStopped.current);
		});
	};
	return (
		<>
			<div class="buttons">
				<Button busy={isBusy} onClick={check}>
					Check the chain
				</Button>
				{isBusy && <Button onClick={() => (isStopped.current = true)}>Stop</Button>}
				<span role="status">{result !== null && <span class={result.isGood ? "checked good" : "checked"}>{result.text}</span>}</span>
			</div>
			<Problem error={error} />
		</>
	);
}
