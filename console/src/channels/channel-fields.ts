/** The fields of a channel as a person types them. */

import type { Access, Channel, ChannelChange, ChannelType, NewChannel } from "../../../clients/typescript/src/generated/rest.js";

export interface ChannelDraft {
	name: string;
	handle: string;
	description: string;
	type: ChannelType;
	access: Access;
	retention: string;
	ackWait: string;
	backOff: string;
	maxDeliveries: string;
	isKeyOrdered: boolean;
}

export type ChannelProblems = Partial<Record<keyof ChannelDraft, string>>;

export const NEW: ChannelDraft = {
	name: "",
	handle: "",
	description: "",
	type: "broadcast",
	access: "open",
	retention: "",
	ackWait: "",
	backOff: "",
	maxDeliveries: "",
	isKeyOrdered: false,
};

export function draftOf(channel: Channel): ChannelDraft {
	return {
		name: channel.name,
		handle: channel.handle ?? "",
		description: channel.description,
		type: channel.type,
		access: channel.access,
		retention: text(channel.retention_s),
		ackWait: text(channel.ack_wait_s),
		backOff: (channel.back_off ?? []).join(", "),
		maxDeliveries: text(channel.max_deliveries),
		isKeyOrdered: channel.key_ordered ?? false,
	};
}

function text(value: number | null): string {
	return value === null ? "" : String(value);
}

const NUMBERS = ["retention", "ackWait", "maxDeliveries"] as const;

/** Return what is wrong with the fields; empty if nothing is. The server checks their bounds. */
export function problemsOf(draft: ChannelDraft): ChannelProblems {
	const problems: ChannelProblems = {};
	if (draft.name.trim() === "") problems.name = "A channel needs a name.";
	for (const field of NUMBERS) if (!/^\d*$/.test(draft[field].trim())) problems[field] = "Type a whole number, or nothing.";
	if (!/^[\d\s,]*$/.test(draft.backOff)) problems.backOff = "Type whole numbers of seconds, with commas between: 1, 10, 60.";
	return problems;
}

/** Return the body that creates the channel. An empty field leaves the choice to the server. */
export function creation(draft: ChannelDraft): NewChannel {
	const handle = draft.handle.trim() === "" ? {} : { handle: draft.handle.trim() };
	const { name, description, type, access } = draft;
	return { name, description, type, access, retention_s: number(draft.retention), ...handle, ...(type === "queue" ? queue(draft) : {}) };
}

/** Return the body with the fields that differ from the channel's. */
export function change(channel: Channel, draft: ChannelDraft): ChannelChange {
	const before = draftOf(channel);
	const isQueue = channel.type === "queue";
	const all: Record<string, unknown> = {};
	if (draft.name !== before.name) all["name"] = draft.name;
	if (draft.handle.trim() !== before.handle) all["handle"] = draft.handle.trim();
	if (draft.description !== before.description) all["description"] = draft.description;
	if (draft.access !== before.access) all["access"] = draft.access;
	if (draft.retention.trim() !== before.retention) all["retention_s"] = number(draft.retention);
	return isQueue ? { ...all, ...queue(draft) } : all;
}

function queue(draft: ChannelDraft) {
	return {
		ack_wait_s: number(draft.ackWait),
		back_off: draft.backOff.trim() === "" ? null : draft.backOff.split(/[\s,]+/).filter(Boolean).map(Number),
		max_deliveries: number(draft.maxDeliveries),
		key_ordered: draft.isKeyOrdered,
	};
}

function number(typed: string): number | null {
	return typed.trim() === "" ? null : Number(typed);
}
