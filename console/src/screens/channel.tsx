/** One channel: its messages, subscriptions, dead letters and settings. */

import { useState } from "preact/hooks";

import type { ChannelDetails } from "../../../clients/typescript/src/generated/rest.js";
import { ChannelDialog } from "../channels/channel-dialog.js";
import { DeadLetters } from "../channels/dead-letters.js";
import { Scheduled } from "../channels/scheduled.js";
import { Subscriptions } from "../channels/subscriptions.js";
import { useEvery } from "../every.js";
import { ChannelMessages } from "../messages/channel-messages.js";
import { messagesOf } from "../messages/message.js";
import { PublishForm } from "../messages/publish-form.js";
import { go, tenantLink, type ScreenProps } from "../router.js";
import { canWrite, client, tenantId } from "../session.js";
import { Badge, Button, Card, Code, Confirm, Copy, Count, Dialog, Fact, Facts, Loading, Name, PageHead, Problem, Tabs, Time, useLoad } from "../ui/index.js";

const RELOAD_MS = 5_000;

export function ChannelScreen({ params }: ScreenProps) {
	const id = params["channel"] ?? "";
	const channel = useLoad(() => client.readChannel(tenantId(), id), [tenantId(), id]);
	useEvery(RELOAD_MS, channel.reload);
	const value = channel.value;
	if (value === null || channel.error?.code === "channel_not_found") return channel.error === null ? <Loading /> : <Problem error={channel.error} onRetry={channel.reload} />;
	const letters = value.dead_letter ?? (value.dead_letter_of === null ? null : value.id);
	const tabs = [
		{ name: "Messages", content: () => <ChannelMessages channel={value} /> },
		{ name: "Subscriptions", content: () => <Subscriptions channel={value} /> },
		...(letters === null ? [] : [{ name: "Dead letters", content: () => <DeadLetters letters={letters} queue={value.dead_letter_of ?? value.id} /> }]),
		...(value.type === "live" ? [] : [{ name: "Scheduled", content: () => <Scheduled channel={value.id} /> }]),
		{ name: "Settings", content: () => <Settings channel={value} /> },
	];
	return (
		<>
			<PageHead title={<Name>{value.name}</Name>} note={<Note channel={value} />}>
				{canWrite.value && <Actions channel={value} onChanged={channel.reload} />}
			</PageHead>
			<Problem error={channel.error} />
			<Figures channel={value} />
			<Tabs label="About this channel" tabs={tabs} />
		</>
	);
}

function Note({ channel }: { channel: ChannelDetails }) {
	return (
		<>
			<Code>{channel.handle ?? channel.id}</Code> <bdi>{channel.description}</bdi>
		</>
	);
}

function Figures({ channel }: { channel: ChannelDetails }) {
	return (
		<Card>
			<Facts>
				<Fact name="Type">
					<Badge tone="accent">{channel.type}</Badge> <Badge>{channel.access}</Badge>
				</Fact>
				<Fact name="Stored messages">
					<Count of={channel.messages} />
				</Fact>
				<Fact name="Sequences">
					<span>
						<Count of={channel.first_seq} /> to <Count of={channel.last_seq} />
					</span>
				</Fact>
				{channel.type === "queue" && <QueueFacts channel={channel} />}
			</Facts>
		</Card>
	);
}

/** What waits in a queue, and since when. */
function QueueFacts({ channel }: { channel: ChannelDetails }) {
	const { id, oldest_seq: seq, dead_letter: letters } = channel;
	const oldest = useLoad(async () => {
		if (!seq) return null;
		const page = await client.readHistory(tenantId(), id, { after: String(seq - 1), limit: 1 });
		return messagesOf(page.items)[0]?.time ?? null;
	}, [id, seq]);
	const dead = useLoad(async () => (letters === null ? null : client.readChannel(tenantId(), letters)), [channel]);
	return (
		<>
			<Fact name="Waiting">
				<Count of={channel.pending} />
			</Fact>
			<Fact name="Held">
				<Count of={channel.held} />
			</Fact>
			<Fact name="Oldest">
				<Time at={oldest.value} relative />
			</Fact>
			<Fact name="Dead letters">
				<Count of={dead.value?.messages} />
			</Fact>
		</>
	);
}

function Settings({ channel }: { channel: ChannelDetails }) {
	const isQueue = channel.type === "queue";
	return (
		<Facts>
			<Fact name="Id">
				<Code>{channel.id}</Code> <Copy text={channel.id} label="Copy the id" />
			</Fact>
			<Fact name="Retention">{channel.retention_s === null ? "the plan's" : `${channel.retention_s} s`}</Fact>
			{isQueue && <Fact name="Time to acknowledge">{`${channel.ack_wait_s} s`}</Fact>}
			{isQueue && <Fact name="Between deliveries">{channel.back_off?.length ? `${channel.back_off.join(", ")} s` : "no wait"}</Fact>}
			{isQueue && <Fact name="Deliveries">{channel.max_deliveries}</Fact>}
			{isQueue && <Fact name="In order by partition">{channel.key_ordered === true ? "yes" : "no"}</Fact>}
			{channel.dead_letter !== null && (
				<Fact name="Dead letters go to">
					<a href={tenantLink("channels", channel.dead_letter)}>
						<Code>{channel.dead_letter}</Code>
					</a>
				</Fact>
			)}
			{channel.dead_letter_of !== null && (
				<Fact name="Dead letters of">
					<a href={tenantLink("channels", channel.dead_letter_of)}>
						<Code>{channel.dead_letter_of}</Code>
					</a>
				</Fact>
			)}
			<Fact name="Created">
				<Time at={channel.created_at} />
			</Fact>
			<Fact name="Changed">
				<Time at={channel.updated_at} />
			</Fact>
		</Facts>
	);
}

interface ActionsProps {
	channel: ChannelDetails;
	onChanged: () => void;
}

function Actions({ channel, onChanged }: ActionsProps) {
	const [asked, setAsked] = useState<"publish" | "edit" | "delete" | null>(null);
	const close = () => setAsked(null);
	return (
		<>
			<Button kind="primary" onClick={() => setAsked("publish")}>
				Publish
			</Button>
			<Button onClick={() => setAsked("edit")}>Edit</Button>
			<Button kind="danger" onClick={() => setAsked("delete")}>
				Delete
			</Button>
			{asked === "publish" && (
				<Dialog title="Publish a message" onClose={close}>
					<PublishForm channel={channel.handle ?? channel.id} />
				</Dialog>
			)}
			{asked === "edit" && <ChannelDialog channel={channel} onSaved={onChanged} onClose={close} />}
			{asked === "delete" && <Delete channel={channel} onClose={close} />}
		</>
	);
}

function Delete({ channel, onClose }: { channel: ChannelDetails; onClose: () => void }) {
	const remove = async () => {
		await client.deleteChannel(tenantId(), channel.id);
		go(tenantLink("channels"), { replace: true });
	};
	return (
		<Confirm title="Delete this channel?" action="Delete" act={remove} onClose={onClose}>
			<p>
				<Name>{channel.name}</Name> is removed with its subscriptions{channel.type === "live" ? "" : " and messages"}
				{channel.dead_letter === null ? "" : ", and with its dead letters"}. This cannot be undone.
			</p>
		</Confirm>
	);
}
