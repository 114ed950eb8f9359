/**
 * The search for the messages of a conversation, over the channels that the person may read.
 *
 * The API has no list of a chain's messages, and a message names its cause by id only. But the id of the first message has its
 * time, so only what was stored since then is read, the likely channels first, until as many were found as the chain counts.
 */

import type { Chain, Channel } from "../../../clients/typescript/src/generated/rest.js";
import { client } from "../session.js";
import { belongsTo, searchFrom, searchOrder } from "./conversation.js";
import { type ChannelMessage, messagesOf } from "./message.js";

const PAGE = 200;
/** Of one channel; a chain of answers is rarely longer in time than so many messages. */
const MAX_PAGES = 10;
const MAX_CHANNELS = 1_000;

export interface Found {
	messages: readonly ChannelMessage[];
	/** How many channels were read, and how many there are. */
	read: number;
	channels: number;
	/** Channels with more messages since then than were read. */
	unfinished: readonly string[];
}

export interface Search {
	tenant: string;
	chain: string;
	/** The state of the chain; null if it is not counted any more. */
	state: Chain | null;
	/** The channels to read first: where the reader comes from, and those that answers are asked for in. */
	likely: readonly string[];
	signal: AbortSignal;
	onProgress: (found: Found) => void;
}

/** Read the channels one after another. Calls `onProgress` after each. */
export async function findConversation({ tenant, chain, state, likely, signal, onProgress }: Search): Promise<void> {
	const after = searchFrom(chain) ?? "1970-01-01T00:00:00Z";
	const messages = new Map<string, ChannelMessage>();
	const hints = [...likely];
	const unfinished: string[] = [];
	const channels = (await allChannels(tenant)).filter((each) => each.type !== "live" && each.dead_letter_of === null);
	const left = new Set(channels);
	while (left.size > 0 && !signal.aborted && messages.size < (state?.messages ?? Infinity)) {
		const [next] = searchOrder([...left], hints);
		if (next === undefined) return;
		left.delete(next);
		const isWhole = await readChannel(next, { tenant, chain, after, signal }, (message) => {
			messages.set(message.message_id, message);
			if (message.reply_to != null) hints.push(message.reply_to);
		});
		if (!isWhole) unfinished.push(next.handle ?? next.id);
		onProgress({ messages: [...messages.values()], read: channels.length - left.size, channels: channels.length, unfinished });
	}
}

async function allChannels(tenant: string): Promise<Channel[]> {
	const channels: Channel[] = [];
	for await (const each of client.all((cursor) => client.listChannels(tenant, { cursor, limit: PAGE }))) {
		channels.push(each);
		if (channels.length === MAX_CHANNELS) break;
	}
	return channels;
}

interface Reading {
	tenant: string;
	chain: string;
	after: string;
	signal: AbortSignal;
}

/** Read what was stored in a channel since then. Return whether that was all. */
async function readChannel(channel: Channel, { tenant, chain, after, signal }: Reading, onMessage: (message: ChannelMessage) => void): Promise<boolean> {
	let cursor: string | null = null;
	for (let page = 0; page < MAX_PAGES && !signal.aborted; page += 1) {
		const found = await client.readHistory(tenant, channel.id, { after, cursor, limit: PAGE });
		for (const message of messagesOf(found.items)) if (belongsTo(message, chain)) onMessage(message);
		cursor = found.next_cursor;
		if (cursor === null) return true;
	}
	return false;
}
