/** The loop guard: conversations that were stopped, and the way to any conversation by the id of a message. */

import { useState } from "preact/hooks";

import type { DigestedEntry } from "../../../clients/typescript/src/generated/rest.js";
import { readEntries } from "../audit/entries.js";
import { useEvery } from "../every.js";
import { go, tenantLink } from "../router.js";
import { client, isAdmin, tenantId } from "../session.js";
import { Badge, Button, Code, type Column, Count, Field, Form, List, type Page, PageHead, Time, usePages } from "../ui/index.js";

const RELOAD_MS = 15_000;
const SHOWN = 50;

interface Stop {
	entry: DigestedEntry;
	chain: string;
	/** Null: it has had no answer for a day, and is forgotten. */
	status: string | null;
}

export function ChainsScreen() {
	const [id, setId] = useState("");
	const open = () => go(tenantLink("conversations", id.trim()));
	return (
		<>
			<PageHead title="Conversations" note="Messages that answer each other form a chain. The loop guard stops one that exceeds the plan's limits." />
			<Form label="Show a conversation" onSubmit={open}>
				<div class="seek">
					<Field label="Message" value={id} onInput={setId} code placeholder="msg_…" hint="The id of its first message." />
					<Button type="submit" disabled={id.trim() === ""}>
						Show
					</Button>
				</div>
			</Form>
			{isAdmin.value && <Stops />}
		</>
	);
}

const COLUMNS: readonly Column<Stop>[] = [
	{
		title: "Conversation",
		cell: (each) => (
			<a href={tenantLink("conversations", each.chain)}>
				<Code>{each.chain}</Code>
			</a>
		),
	},
	{ title: "State", cell: ({ status }) => (status === null ? <span class="faint">forgotten</span> : <Badge tone={status === "stopped" ? "bad" : "good"}>{status}</Badge>) },
	{ title: "Stopped", cell: (each) => <Time at={each.entry.time} relative /> },
	{ title: "Limit", cell: (each) => each.entry.facts["limit"] },
	{ title: "Messages refused", minor: true, align: "end", cell: (each) => <Count of={Number(each.entry.facts["count"] ?? 1)} /> },
];

/** The chains that were stopped lately. The audit has them, so only admins see this list. */
function Stops() {
	const stops = usePages(readStops, [tenantId()]);
	useEvery(RELOAD_MS, stops.reload);
	return (
		<>
			<h2>Stopped by the loop guard</h2>
			<List label="Stopped conversations" pages={stops} columns={COLUMNS} rowKey={(each) => each.entry.id} empty="No conversation was stopped" />
		</>
	);
}

async function readStops(_: string | null, signal: AbortSignal): Promise<Page<Stop>> {
	const entries = await readEntries({ action: "chain.stop" }, SHOWN, signal);
	const newest = new Map<string, DigestedEntry>();
	for (const entry of entries) {
		const chain = entry.facts["chain"];
		if (chain !== undefined && !newest.has(chain)) newest.set(chain, entry);
	}
	return { items: await Promise.all([...newest].map(async ([chain, entry]) => ({ entry, chain, status: await statusOf(chain) }))), next_cursor: null };
}

async function statusOf(chain: string): Promise<string | null> {
	return client.readChain(tenantId(), chain).then(
		(found) => found.status,
		() => null,
	);
}
