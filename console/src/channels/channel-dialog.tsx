/** The dialog that creates or changes a channel. */

import { useState } from "preact/hooks";

import type { Access, Channel, ChannelType } from "../../../clients/typescript/src/generated/rest.js";
import { client, tenantId } from "../session.js";
import { Field, FormDialog, Select } from "../ui/index.js";
import { change, type ChannelDraft, type ChannelProblems, creation, draftOf, NEW, problemsOf } from "./channel-fields.js";

const TYPES: readonly (readonly [ChannelType, string])[] = [
	["broadcast", "broadcast: every subscriber gets every message"],
	["queue", "queue: each message goes to one subscriber"],
	["live", "live: connected subscribers only, nothing is stored"],
];
const ACCESS: readonly (readonly [Access, string])[] = [
	["open", "open: any agent of the organisation"],
	["managed", "managed: agents that a member subscribes"],
];

interface ChannelDialogProps {
	/** The channel to change; without it one is created. */
	channel?: Channel;
	onSaved: (channel: Channel) => void;
	onClose: () => void;
}

export function ChannelDialog({ channel, onSaved, onClose }: ChannelDialogProps) {
	const [draft, setDraft] = useState<ChannelDraft>(channel === undefined ? NEW : draftOf(channel));
	const isNew = channel === undefined;
	const [problems, setProblems] = useState<ChannelProblems>({});
	const set = (changes: Partial<ChannelDraft>) => setDraft({ ...draft, ...changes });
	const save = async () => {
		const found = problemsOf(draft);
		setProblems(found);
		if (Object.keys(found).length > 0) return false;
		onSaved(channel === undefined ? await client.createChannel(tenantId(), creation(draft)) : await client.changeChannel(tenantId(), channel.id, change(channel, draft)));
		return true;
	};
	return (
		<FormDialog title={isNew ? "Create a channel" : "Edit the channel"} action={isNew ? "Create" : "Save"} act={save} onClose={onClose}>
			<Field label="Name" value={draft.name} onInput={(name) => set({ name })} required maxLength={64} problem={problems.name ?? null} />
			<Field label="Handle" value={draft.handle} onInput={(handle) => set({ handle })} code maxLength={64} hint={`Programs name the channel by it.${isNew ? " Empty: made from the name." : ""}`} />
			<Field label="Description" value={draft.description} onInput={(description) => set({ description })} lines={2} maxLength={1024} />
			{isNew && <Select label="Type" value={draft.type} options={TYPES} onChange={(type) => set({ type })} hint="It cannot be changed later." />}
			<Select label="Access" value={draft.access} options={ACCESS} onChange={(access) => set({ access })} />
			{draft.type !== "live" && (
				<Field label="Retention in seconds" value={draft.retention} onInput={(retention) => set({ retention })} hint="Older messages are removed. Empty: the plan's." problem={problems.retention ?? null} />
			)}
			{draft.type === "queue" && <QueueFields draft={draft} problems={problems} set={set} />}
		</FormDialog>
	);
}

interface QueueFieldsProps {
	draft: ChannelDraft;
	problems: ChannelProblems;
	set: (changes: Partial<ChannelDraft>) => void;
}

function QueueFields({ draft, problems, set }: QueueFieldsProps) {
	return (
		<>
			<Field label="Seconds to acknowledge" value={draft.ackWait} onInput={(ackWait) => set({ ackWait })} hint="Then another subscriber gets the message. Empty: 30." problem={problems.ackWait ?? null} />
			<Field label="Seconds between deliveries" value={draft.backOff} onInput={(backOff) => set({ backOff })} placeholder="1, 10, 60" hint="Of a message that failed." problem={problems.backOff ?? null} />
			<Field label="Deliveries" value={draft.maxDeliveries} onInput={(maxDeliveries) => set({ maxDeliveries })} hint="After so many a message becomes a dead letter. Empty: 10." problem={problems.maxDeliveries ?? null} />
			<label class="check">
				<input type="checkbox" checked={draft.isKeyOrdered} onChange={(event) => set({ isKeyOrdered: event.currentTarget.checked })} /> Hold messages with the same header{" "}
				<code>partition</code> one at a time, in order
			</label>
		</>
	);
}
