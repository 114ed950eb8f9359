/** The channels of the tenant, with what goes through them and who is behind. */

import { useState } from "preact/hooks";

import type { Channel } from "../../../clients/typescript/src/generated/rest.js";
import { ChannelDialog } from "../channels/channel-dialog.js";
import { FiguresStore, useFigures, useRefresh } from "../channels/figures-store.js";
import { useEvery } from "../every.js";
import { go, location, setQuery, tenantLink } from "../router.js";
import { canWrite, client, tenantId } from "../session.js";
import { Badge, Button, Code, type Column, Count, Field, List, Name, PageHead, usePages } from "../ui/index.js";

const RELOAD_MS = 15_000;

export function ChannelsScreen() {
	const [store] = useState(() => new FiguresStore());
	const [isCreating, setCreating] = useState(false);
	const channels = usePages((cursor) => client.listChannels(tenantId(), { cursor, limit: 200 }), [tenantId()]);
	const search = location.value.query.get("search") ?? "";
	const rows = channels.items.filter((each) => fits(each, search));
	useRefresh(store);
	useEvery(RELOAD_MS, channels.reload, channels.items.length <= 200 && !channels.hasMore);
	return (
		<>
			<PageHead title="Channels" note="Ordered logs of messages. Agents subscribe to them, and publish to them.">
				{canWrite.value && (
					<Button kind="primary" onClick={() => setCreating(true)}>
						Create a channel
					</Button>
				)}
			</PageHead>
			<div class="filters">
				<Field label="Search" type="search" value={search} onInput={(value) => setQuery({ search: value })} placeholder="name, handle or id" />
			</div>
			<List label="Channels" pages={channels} rows={rows} columns={columnsOf(store)} rowKey={(each) => each.id} empty={search === "" ? "No channel yet" : "No channels match"}>
				{search === "" && canWrite.value && "Create one, and subscribe agents to it."}
			</List>
			{isCreating && <ChannelDialog onSaved={(made) => go(tenantLink("channels", made.id))} onClose={() => setCreating(false)} />}
		</>
	);
}

function fits(channel: Channel, search: string): boolean {
	const word = search.trim().toLowerCase();
	return word === "" || [channel.name, channel.handle ?? "", channel.id, channel.description].some((each) => each.toLowerCase().includes(word));
}

function columnsOf(store: FiguresStore): Column<Channel>[] {
	return [
		{
			title: "Channel",
			cell: (channel) => (
				<a href={tenantLink("channels", channel.id)}>
					<Name>{channel.name}</Name>
				</a>
			),
		},
		{ title: "Handle", minor: true, cell: (channel) => <Code>{channel.handle ?? channel.id}</Code> },
		{ title: "Type", cell: (channel) => <TypeBadges channel={channel} /> },
		{ title: "Last seq", align: "end", cell: (channel) => <LastSeq store={store} channel={channel} /> },
		{ title: "Per minute", align: "end", cell: (channel) => <Rate store={store} channel={channel} /> },
		{ title: "Backlog", align: "end", cell: (channel) => <Count of={backlogOf(store, channel)} /> },
		{ title: "Slowest subscriber", minor: true, cell: (channel) => <Slowest store={store} channel={channel} /> },
	];
}

function TypeBadges({ channel }: { channel: Channel }) {
	if (channel.dead_letter_of !== null) return <Badge tone="bad">dead letters</Badge>;
	return (
		<>
			<Badge tone={channel.type === "broadcast" ? "plain" : "accent"}>{channel.type}</Badge>
			{channel.access === "managed" && <Badge>managed</Badge>}
		</>
	);
}

interface CellProps {
	store: FiguresStore;
	channel: Channel;
}

function LastSeq({ store, channel }: CellProps) {
	return <Count of={useFigures(store, channel)?.details.last_seq} />;
}

function Rate({ store, channel }: CellProps) {
	const rate = store.of(channel.id).value?.rate ?? null;
	return <Count of={rate === null ? null : rate < 10 ? Math.round(rate * 10) / 10 : Math.round(rate)} />;
}

/** Return the messages above the cursor of the slowest subscriber, or those of a queue that have not ended; null if it is unknown. */
function backlogOf(store: FiguresStore, channel: Channel): number | null {
	const figures = store.of(channel.id).value;
	if (figures === null || channel.type === "live") return null;
	const { pending, held } = figures.details;
	if (channel.type === "queue") return pending == null || held == null ? null : pending + held;
	return figures.slowest?.lag ?? 0;
}

function Slowest({ store, channel }: CellProps) {
	const subscription = store.of(channel.id).value?.slowest;
	if (subscription == null) return <span class="faint">–</span>;
	return (
		<a href={tenantLink("agents", subscription.agent_id)}>
			<Code>{subscription.agent_handle ?? subscription.agent_id}</Code>
		</a>
	);
}
