/** The newest messages of a channel, as they come: the end of its history, and what the gateway shows from there on. */

import { effect } from "@preact/signals";

import type { ArtcafeError } from "../../../clients/typescript/src/errors.js";
import type { Channel } from "../../../clients/typescript/src/generated/rest.js";
import { connection, watch } from "../live.js";
import { client, tenantId } from "../session.js";
import { problemOf } from "../ui/index.js";
import { messagesOf } from "./message.js";
import { Timeline } from "./timeline.js";

const PAGE = 100;

export class ChannelFeed {
	readonly timeline = new Timeline();
	error: ArtcafeError | null = null;
	isLoading = true;
	/** Whether older messages than those shown are stored. */
	hasOlder = false;
	readonly #tenant = tenantId();
	#endWatch = (): void => {};
	#endConnectionEffect = (): void => {};
	#isOver = false;
	#isReadingOlder = false;
	#frame = 0;

	/** `onChange` is called at most once a frame of the screen. */
	constructor(
		readonly channel: Channel,
		readonly onChange: () => void,
	) {
		void this.#begin();
	}

	end(): void {
		this.#isOver = true;
		this.#endWatch();
		this.#endConnectionEffect();
		cancelAnimationFrame(this.#frame);
	}

	/** Read the page before the oldest message. */
	async loadOlder(): Promise<void> {
		const first = this.timeline.first;
		if (!this.hasOlder || this.#isReadingOlder || first === null) return;
		this.#isReadingOlder = true;
		try {
			const page = await client.readHistory(this.#tenant, this.channel.id, { before: String(first), limit: PAGE });
			this.timeline.prepend(messagesOf(page.items), page.gap);
			this.hasOlder = page.next_cursor !== null;
		} catch (error) {
			this.error = problemOf(error);
		}
		this.#isReadingOlder = false;
		this.#changed();
	}

	async #begin(): Promise<void> {
		const isStored = this.channel.type !== "live";
		try {
			if (isStored) await this.#readNewest();
			if (this.#isOver) return;
			this.#watchAfter(isStored ? this.timeline.last : null);
			if (isStored) this.#endConnectionEffect = this.#onReconnect(() => void this.#checkLog());
			else this.#endConnectionEffect = this.#onReconnect(() => this.#note("The connection was lost: messages before this line may be missing."));
		} catch (error) {
			this.error = problemOf(error);
		}
		this.isLoading = false;
		this.#changed();
	}

	async #readNewest(): Promise<void> {
		const page = await client.readHistory(this.#tenant, this.channel.id, { limit: PAGE });
		this.timeline.open(messagesOf(page.items), page.gap);
		this.hasOlder = page.next_cursor !== null;
	}

	#watchAfter(after: number | null): void {
		this.#endWatch = watch(this.channel.id, after, {
			onMessage: (message) => {
				if (this.timeline.add(message)) this.#changed();
			},
			onGap: (gap) => {
				this.timeline.addGap(gap);
				this.#changed();
			},
			onError: (error) => {
				this.error = error;
				this.#changed();
			},
		});
	}

	/** Call a function after each connection but the present one. */
	#onReconnect(act: () => void): () => void {
		let wasLost = false;
		return effect(() => {
			if (connection.value === "lost") wasLost = true;
			else if (connection.value === "connected" && wasLost) {
				wasLost = false;
				act();
			}
		});
	}

	/** After a restore from a backup sequences begin again: the watch would take new messages for old ones. */
	async #checkLog(): Promise<void> {
		const { last_seq } = await client.readChannel(this.#tenant, this.channel.id).catch(() => ({ last_seq: null }));
		if (this.#isOver || last_seq == null || last_seq >= this.timeline.last) return;
		this.#endWatch();
		this.timeline.renew();
		this.#watchAfter(0);
		this.#changed();
	}

	#note(text: string): void {
		this.timeline.note(text);
		this.#changed();
	}

	#changed(): void {
		if (this.#isOver || this.#frame !== 0) return;
		this.#frame = requestAnimationFrame(() => {
			this.#frame = 0;
			this.onChange();
		});
	}
}
