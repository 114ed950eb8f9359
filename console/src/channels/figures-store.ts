/** Figures of the channels that a list shows, read for the rows in view and again every few seconds. */

import { signal, type Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";

import type { Channel, ChannelDetails, Subscription } from "../../../clients/typescript/src/generated/rest.js";
import { useEvery } from "../every.js";
import { client, tenantId } from "../session.js";
import { type Reading, ratePerMinute, slowest } from "./figures.js";

const EVERY_MS = 10_000;
const AT_ONCE = 4;

export interface Figures {
	details: ChannelDetails;
	rate: number | null;
	slowest: Subscription | null;
}

export class FiguresStore {
	readonly #figures = new Map<string, Signal<Figures | null>>();
	readonly #readings = new Map<string, Reading>();
	/** How many cells show a channel. */
	readonly #uses = new Map<string, number>();
	readonly #due = new Set<string>();
	#running = 0;

	/** Return the figures of a channel; null until they are read, and while they cannot be. */
	of(channel: string): Signal<Figures | null> {
		let found = this.#figures.get(channel);
		if (found === undefined) this.#figures.set(channel, (found = signal(null)));
		return found;
	}

	/** Read the figures of a channel as long as it is shown. Returns a function that ends it. */
	show(channel: string): () => void {
		const uses = this.#uses.get(channel) ?? 0;
		this.#uses.set(channel, uses + 1);
		if (uses === 0) this.#ask(channel);
		return () => {
			const left = (this.#uses.get(channel) ?? 1) - 1;
			if (left > 0) this.#uses.set(channel, left);
			else this.#uses.delete(channel);
		};
	}

	/** Read the figures of every shown channel again. */
	refresh(): void {
		for (const channel of this.#uses.keys()) this.#ask(channel);
	}

	#ask(channel: string): void {
		this.#due.add(channel);
		if (this.#running < AT_ONCE) void this.#readDue();
	}

	async #readDue(): Promise<void> {
		this.#running += 1;
		for (const channel of this.#due) {
			this.#due.delete(channel);
			if (this.#uses.has(channel)) await this.#read(channel);
		}
		this.#running -= 1;
	}

	async #read(channel: string): Promise<void> {
		const found = this.of(channel);
		try {
			const details = await client.readChannel(tenantId(), channel);
			const subscriptions = await client.listChannelSubscriptions(tenantId(), channel, { limit: 200 });
			const reading = { at: performance.now(), figures: details };
			found.value = { details, rate: ratePerMinute(this.#readings.get(channel), reading), slowest: slowest(subscriptions.items) };
			this.#readings.set(channel, reading);
		} catch {
			found.value = null; // The list itself shows why the server cannot be read.
		}
	}
}

/** Read the figures of a row's channel while the row is in view. */
export function useFigures(store: FiguresStore, channel: Channel): Figures | null {
	useEffect(() => store.show(channel.id), [store, channel.id]);
	return store.of(channel.id).value;
}

/** Refresh a store while the page is seen. */
export function useRefresh(store: FiguresStore): void {
	useEvery(EVERY_MS, () => store.refresh());
}
