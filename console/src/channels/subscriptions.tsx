/** The subscriptions of a channel: how far each agent is, and what a member may do about it. */

import { useState } from "preact/hooks";

import type { Channel, Permission, Subscription } from "../../../clients/typescript/src/generated/rest.js";
import { useEvery } from "../every.js";
import { parsePlace, type Place, SEEK_HELP } from "../messages/seek.js";
import { tenantLink } from "../router.js";
import { canWrite, client, tenantId } from "../session.js";
import { Button, Code, type Column, Confirm, Count, Field, FormDialog, List, Problem, Select, Time, useAction, usePages } from "../ui/index.js";
import { BEHIND, CURSOR, MAY, STATE } from "./subscription-columns.js";

const RELOAD_MS = 5_000;

type Question = { act: "move" | "delete"; subscription: Subscription };

export function Subscriptions({ channel }: { channel: Channel }) {
	const list = usePages((cursor) => client.listChannelSubscriptions(tenantId(), channel.id, { cursor, limit: 200 }), [channel.id]);
	const [asked, setAsked] = useState<Question | null>(null);
	const [isAdding, setAdding] = useState(false);
	const { error, run } = useAction();
	useEvery(RELOAD_MS, list.reload, !list.hasMore && list.items.length <= 200);
	const setStatus = ({ agent_id, status }: Subscription) =>
		run(async () => {
			await client.changeSubscription(tenantId(), channel.id, agent_id, { status: status === "active" ? "paused" : "active" });
			list.reload();
		});
	const actions: Column<Subscription> = {
		title: "",
		align: "end",
		cell: (each) => <RowActions subscription={each} hasCursor={channel.type === "broadcast"} onStatus={() => void setStatus(each)} onAsk={(act) => setAsked({ act, subscription: each })} />,
	};
	const close = () => setAsked(null);
	return (
		<>
			{canWrite.value && (
				<div class="buttons">
					<Button onClick={() => setAdding(true)}>Subscribe an agent</Button>
				</div>
			)}
			<Problem error={error} />
			<List label="Subscriptions" pages={list} columns={canWrite.value ? [...COLUMNS, actions] : COLUMNS} rowKey={(each) => each.agent_id} empty="No subscription">
				Agents get messages of this channel once they are subscribed.
			</List>
			{isAdding && <AddSubscription channel={channel} onDone={list.reload} onClose={() => setAdding(false)} />}
			{asked?.act === "move" && <MoveCursor channel={channel} subscription={asked.subscription} onDone={list.reload} onClose={close} />}
			{asked?.act === "delete" && <EndSubscription channel={channel} subscription={asked.subscription} onDone={list.reload} onClose={close} />}
		</>
	);
}

const COLUMNS: readonly Column<Subscription>[] = [
	{
		title: "Agent",
		cell: (each) => (
			<a href={tenantLink("agents", each.agent_id)}>
				<Code>{nameOf(each)}</Code>
			</a>
		),
	},
	STATE,
	MAY,
	CURSOR,
	BEHIND,
	{ title: "Last seen", minor: true, cell: (each) => <Time at={each.last_seen} relative /> },
];

function nameOf(subscription: Subscription): string {
	return subscription.agent_handle ?? subscription.agent_id;
}

interface RowActionsProps {
	subscription: Subscription;
	hasCursor: boolean;
	onStatus: () => void;
	onAsk: (act: Question["act"]) => void;
}

function RowActions({ subscription, hasCursor, onStatus, onAsk }: RowActionsProps) {
	const name = nameOf(subscription);
	const word = subscription.status === "active" ? "Pause" : "Resume";
	return (
		<span class="row-actions">
			<Button kind="quiet" onClick={onStatus} label={`${word} ${name}`}>
				{word}
			</Button>
			{hasCursor && (
				<Button kind="quiet" onClick={() => onAsk("move")} label={`Move the cursor of ${name}`}>
					Move
				</Button>
			)}
			<Button kind="quiet" onClick={() => onAsk("delete")} label={`End the subscription of ${name}`}>
				End
			</Button>
		</span>
	);
}

interface QuestionProps {
	channel: Channel;
	onDone: () => void;
	onClose: () => void;
}

/** Return a cursor as the API takes it: everything before the place counts as acknowledged. */
function cursorAt(place: Place): number | string {
	if (place.kind === "seq") return Math.max(0, place.seq - 1);
	return place.kind === "time" ? place.time : place.kind;
}

function MoveCursor({ channel, subscription, onDone, onClose }: QuestionProps & { subscription: Subscription }) {
	const [typed, setTyped] = useState("");
	const [isWrong, setWrong] = useState(false);
	const move = async () => {
		const place = parsePlace(typed, new Date(), false);
		setWrong(place === null);
		if (place === null) return false;
		await client.changeSubscription(tenantId(), channel.id, subscription.agent_id, { cursor: cursorAt(place) });
		onDone();
		return true;
	};
	return (
		<FormDialog title={`Move the cursor of ${nameOf(subscription)}`} action="Move" act={move} onClose={onClose}>
			<p>
				It has acknowledged up to <Count of={subscription.cursor.seq} />. Messages from the new place on are delivered, also those that it had before;
				messages before it never are. The audit records it.
			</p>
			<Field
				label="Deliver from"
				value={typed}
				onInput={setTyped}
				code
				placeholder="first"
				hint="first: everything that is stored; last: only what comes now"
				problem={isWrong ? `Type ${SEEK_HELP}.` : null}
			/>
		</FormDialog>
	);
}

function EndSubscription({ channel, subscription, onDone, onClose }: QuestionProps & { subscription: Subscription }) {
	const end = async () => {
		await client.deleteSubscription(tenantId(), channel.id, subscription.agent_id);
		onDone();
	};
	return (
		<Confirm title="End this subscription?" action="End" act={end} onClose={onClose}>
			<p>
				<Code>{nameOf(subscription)}</Code> gets no more messages of this channel, and its cursor is forgotten.
			</p>
		</Confirm>
	);
}

const PERMISSIONS: readonly (readonly ["receive" | "publish" | "both", string])[] = [["receive", "receive"], ["publish", "publish"], ["both", "receive and publish"]];

function AddSubscription({ channel, onDone, onClose }: QuestionProps) {
	const [agent, setAgent] = useState("");
	const [may, setMay] = useState<"receive" | "publish" | "both">("receive");
	const add = async () => {
		const permissions: Permission[] = may === "both" ? ["receive", "publish"] : [may];
		await client.putSubscription(tenantId(), channel.id, agent.trim(), channel.access === "managed" ? { permissions } : {});
		onDone();
	};
	return (
		<FormDialog title="Subscribe an agent" action="Subscribe" act={add} onClose={onClose} disabled={agent.trim() === ""}>
			<Field label="Agent" value={agent} onInput={setAgent} code required hint="Its handle or id." />
			{channel.access === "managed" && <Select label="It may" value={may} options={PERMISSIONS} onChange={setMay} />}
		</FormDialog>
	);
}
