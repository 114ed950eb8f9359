/** A stored or live message, as the history, the streams and the gateway show it. */

import { jsonOf } from "../json.js";

export interface DeadLetter {
	channel: string;
	seq: number;
	message_id: string;
	reason: string;
	deliveries: number;
	time: string;
}

export interface Redriven {
	channel: string;
	seq: number;
	message_id: string;
	times: number;
	by: string;
	time: string;
}

export interface ChannelMessage {
	channel: string;
	channel_handle?: string | null;
	/** Null in a `live` channel, which stores nothing. */
	seq: number | null;
	/** The sequence of the message before it in the channel. */
	prev?: number | null;
	message_id: string;
	from: string;
	from_handle?: string | null;
	time: string;
	headers: Record<string, string>;
	data: unknown;
	reply_to?: string | null;
	caused_by?: string | null;
	hops?: number | null;
	chain?: string | null;
	expires_at?: string | null;
	deliver_at?: string | null;
	dead_letter?: DeadLetter | null;
	redriven?: Redriven | null;
}

/** A gap: messages that cannot be delivered, since retention removed them, they expired, or their log was replaced. */
export interface MissingRange {
	from: number;
	/** Null: their number is unknown. */
	to: number | null;
	reason: string;
}

/** Return the items of a page of history, whose fields the API's document leaves open. */
export function messagesOf(items: readonly Record<string, unknown>[]): ChannelMessage[] {
	return items as unknown as ChannelMessage[]; // The server's own encoder writes them: rest/messages.py.
}

/** Return the sender as a person reads it: the agent's handle, or the person's id without `usr:`. */
export function senderName(message: Pick<ChannelMessage, "from" | "from_handle">): string {
	return message.from_handle ?? message.from.replace(/^usr:/, "");
}

/** Return the id of the conversation that a message belongs to: its chain, or the message itself, which may begin one. */
export function conversationOf(message: Pick<ChannelMessage, "chain" | "message_id">): string {
	return message.chain ?? message.message_id;
}

const PREVIEW = 160;

/** Return the beginning of a message's data, on one line. */
export function previewOf(data: unknown): string {
	const text = typeof data === "string" ? data : jsonOf(data);
	return (text.length > PREVIEW ? `${text.slice(0, PREVIEW)}…` : text).replace(/\s+/g, " ") || "(empty text)";
}
