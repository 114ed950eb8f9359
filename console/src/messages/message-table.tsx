/** Messages as rows: their place, time, sender and the beginning of their data. A click opens the whole message. */

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

import { Badge, type Column, Count, Name, Table, Time } from "../ui/index.js";
import { type ChannelMessage, previewOf, senderName } from "./message.js";
import { MessageDialog } from "./message-dialog.js";
import type { Entry } from "./timeline.js";

interface MessageTableProps {
	label: string;
	entries: readonly Entry[];
	/** Read more at the end of the rows. */
	onEnd?: () => void;
	/** Show the channel of each message, where they are of several. */
	withChannel?: boolean;
	/** The first column, unless it is the sequence. */
	lead?: Column<ChannelMessage>;
	/** Further columns, such as an action. */
	more?: readonly Column<ChannelMessage>[];
}

const SEQ: Column<ChannelMessage> = { title: "Seq", align: "end", cell: (each) => <Count of={each.seq} /> };

export function MessageTable({ label, entries, onEnd, withChannel = false, lead = SEQ, more = [] }: MessageTableProps) {
	const [opened, setOpened] = useState<ChannelMessage | null>(null);
	const ofMessage = (cell: (message: ChannelMessage) => ComponentChildren) => (entry: Entry) => (entry.kind === "message" ? cell(entry.message) : null);
	const columns: Column<Entry>[] = [
		{ ...lead, cell: ofMessage(lead.cell) },
		...(withChannel ? [{ title: "Channel", cell: ofMessage((each) => <Name>{each.channel_handle ?? each.channel}</Name>) }] : []),
		{ title: "Time", cell: ofMessage((each) => <Time at={each.time} />), minor: true },
		{ title: "From", cell: ofMessage((each) => <Name>{senderName(each)}</Name>) },
		{ title: "Message", cell: (entry) => <Preview entry={entry} onOpen={setOpened} /> },
		...more.map((column) => ({ ...column, cell: ofMessage(column.cell) })),
	];
	return (
		<>
			<Table label={label} columns={columns} rows={entries} rowKey={(entry) => entry.key} {...(onEnd === undefined ? {} : { onEnd })} />
			{opened !== null && <MessageDialog message={opened} onClose={() => setOpened(null)} />}
		</>
	);
}

function Preview({ entry, onOpen }: { entry: Entry; onOpen: (message: ChannelMessage) => void }) {
	if (entry.kind === "missing") return <Missing {...entry.range} />;
	if (entry.kind === "notice") return <em class="faint">{entry.text}</em>;
	const message = entry.message;
	return (
		<span class="preview">
			<button type="button" class="row-button" dir="auto" onClick={() => onOpen(message)}>
				{previewOf(message.data)}
			</button>
			<Marks message={message} />
		</span>
	);
}

const REASONS: Readonly<Record<string, string>> = {
	retention: "older than the channel's retention",
	expired: "expired",
	epoch: "of a log that was replaced",
};

function Missing({ from, to, reason }: { from: number; to: number | null; reason: string }) {
	const range = to === null ? `from ${from} on` : from === to ? String(from) : `${from} to ${to}`;
	return (
		<em class="faint">
			Not stored any more: {range} ({REASONS[reason] ?? reason})
		</em>
	);
}

function Marks({ message }: { message: ChannelMessage }) {
	return (
		<>
			{message.hops != null && <Badge>answer</Badge>}
			{message.reply_to != null && <Badge>asks for answers</Badge>}
			{message.dead_letter != null && <Badge tone="bad">{message.dead_letter.reason}</Badge>}
			{message.redriven != null && <Badge tone="warn">sent back {message.redriven.times}×</Badge>}
		</>
	);
}
