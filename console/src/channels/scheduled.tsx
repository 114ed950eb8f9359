/** The messages of a channel that are to be delivered later, and their cancellation. */

import { useState } from "preact/hooks";

import { useEvery } from "../every.js";
import { type ChannelMessage, messagesOf } from "../messages/message.js";
import { MessageTable } from "../messages/message-table.js";
import { entryOf } from "../messages/timeline.js";
import { canWrite, client, tenantId } from "../session.js";
import { Button, type Column, Confirm, Listed, Name, Time, usePages } from "../ui/index.js";

const RELOAD_MS = 5_000;
const PAGE = 200;

const DUE: Column<ChannelMessage> = { title: "Due", cell: (each) => <Time at={each.deliver_at} /> };

export function Scheduled({ channel }: { channel: string }) {
	const list = usePages(
		async (cursor) => {
			const page = await client.listScheduled(tenantId(), channel, { limit: PAGE, cursor });
			return { items: messagesOf(page.items).map((each) => entryOf({ ...each, seq: null })), next_cursor: page.next_cursor };
		},
		[channel],
	);
	const [asked, setAsked] = useState<ChannelMessage | null>(null);
	useEvery(RELOAD_MS, list.reload, !list.hasMore && list.items.length <= PAGE);
	const more: Column<ChannelMessage>[] = canWrite.value ? [{ title: "", align: "end", cell: (each) => <Cancel message={each} onAsk={() => setAsked(each)} /> }] : [];
	return (
		<>
			<Listed pages={list} empty="No scheduled message" note="Messages that are published with a time of delivery wait here until then.">
				<MessageTable label="Scheduled messages, next first" entries={list.items} onEnd={list.loadMore} lead={DUE} more={more} />
			</Listed>
			{asked !== null && <CancelQuestion channel={channel} message={asked} onDone={list.reload} onClose={() => setAsked(null)} />}
		</>
	);
}

function Cancel({ message, onAsk }: { message: ChannelMessage; onAsk: () => void }) {
	return (
		<Button kind="quiet" label={`Cancel ${message.message_id}`} onClick={onAsk}>
			Cancel
		</Button>
	);
}

interface CancelQuestionProps {
	channel: string;
	message: ChannelMessage;
	onDone: () => void;
	onClose: () => void;
}

function CancelQuestion({ channel, message, onDone, onClose }: CancelQuestionProps) {
	const cancel = async () => {
		try {
			await client.cancelScheduled(tenantId(), channel, message.message_id);
		} finally {
			onDone(); // Refused, the message may have been delivered.
		}
	};
	return (
		<Confirm title="Cancel this message?" action="Cancel the message" keep="Keep it" act={cancel} onClose={onClose}>
			<p>
				<Name>{message.message_id}</Name>, due <Time at={message.deliver_at} />, will never be delivered. This cannot be undone.
			</p>
		</Confirm>
	);
}
