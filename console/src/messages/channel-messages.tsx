/** The messages of a channel: live with a pause, or the history from a place on. Nothing is acknowledged by looking. */

import { useEffect, useReducer, useRef, useState } from "preact/hooks";

import type { Channel } from "../../../clients/typescript/src/generated/rest.js";
import { location, setQuery } from "../router.js";
import { client, tenantId } from "../session.js";
import { Button, Empty, Field, Form, Listed, Loading, Problem, usePages } from "../ui/index.js";
import { ChannelFeed } from "./channel-feed.js";
import { messagesOf } from "./message.js";
import { MessageTable } from "./message-table.js";
import { parsePlace, type Place, queryFrom, SEEK_HELP } from "./seek.js";
import { entriesOf } from "./timeline.js";

export function ChannelMessages({ channel }: { channel: Channel }) {
	const from = location.value.query.get("from");
	const place = from === null ? null : parsePlace(from, new Date(), false);
	return (
		<>
			{channel.type !== "live" && <SeekForm from={from} />}
			{place === null ? <LiveMessages channel={channel} /> : <PastMessages key={from} channel={channel} place={place} />}
		</>
	);
}

function SeekForm({ from }: { from: string | null }) {
	const [typed, setTyped] = useState(from ?? "");
	const [isWrong, setWrong] = useState(false);
	const seek = () => {
		const place = typed.trim() === "" ? null : parsePlace(typed, new Date(), false);
		setWrong(place === null && typed.trim() !== "");
		// An age means another time with each rendering, so that the address keeps the time that it meant first.
		if (place !== null || typed.trim() === "") setQuery({ from: place === null ? null : place.kind === "time" ? place.time : typed.trim() });
	};
	return (
		<Form label="Go to a place in the history" onSubmit={seek}>
			<div class="seek">
				<Field label="From" value={typed} onInput={setTyped} code placeholder="42, 14:30, 2h, first" problem={isWrong ? `Type ${SEEK_HELP}.` : null} />
				<Button type="submit">Go</Button>
				{from !== null && (
					<Button
						onClick={() => {
							setTyped("");
							setQuery({ from: null });
						}}
					>
						Back to the newest
					</Button>
				)}
			</div>
		</Form>
	);
}

/** The history from a place on, oldest first. */
function PastMessages({ channel, place }: { channel: Channel; place: Place }) {
	const pages = usePages(
		async (cursor) => {
			const page = await client.readHistory(tenantId(), channel.id, { ...queryFrom(place), cursor, limit: 200 });
			return { items: entriesOf(messagesOf(page.items), page.gap), next_cursor: page.next_cursor };
		},
		[channel.id],
	);
	return (
		<Listed pages={pages} empty="No message from there on">
			<MessageTable label="Messages, oldest first" entries={pages.items} onEnd={pages.loadMore} />
		</Listed>
	);
}

/** The newest messages first, as they come. While the reader pauses, or has scrolled down, the rows stay where they are. */
function LiveMessages({ channel }: { channel: Channel }) {
	const feed = useFeed(channel);
	const [isPaused, setPaused] = useState(false);
	const isAway = useScrolledAway();
	const { entries, added } = feed.timeline;
	/** How many entries had been added when the rows stopped changing; null while they change. */
	const frozenAt = useRef<number | null>(null);
	frozenAt.current = isPaused || isAway ? (frozenAt.current ?? added) : null;
	const waiting = frozenAt.current === null ? 0 : added - frozenAt.current;
	const rows = entries.slice(0, Math.max(0, entries.length - waiting)).reverse();
	const showNewest = () => {
		setPaused(false);
		window.scrollTo(0, 0);
	};
	return (
		<>
			<div class="live-bar">
				<Button onClick={() => (isPaused ? showNewest() : setPaused(true))}>{isPaused ? "Continue" : "Pause"}</Button>
				<span role="status" class="faint">
					{isPaused ? `Paused: ${waiting} new` : "New messages appear at the top."}
				</span>
			</div>
			{isAway && waiting > 0 && (
				<button type="button" class="button primary to-newest" onClick={showNewest}>
					{waiting} new
				</button>
			)}
			<Problem error={feed.error} />
			{feed.isLoading && <Loading />}
			{!feed.isLoading && feed.error === null && entries.length === 0 && <Empty title="No message yet">They appear here as they are published.</Empty>}
			{rows.length > 0 && <MessageTable label="Messages, newest first" entries={rows} onEnd={() => void feed.loadOlder()} />}
		</>
	);
}

function useFeed(channel: Channel): ChannelFeed {
	const [, render] = useReducer((count: number) => count + 1, 0);
	const [feed] = useState(() => new ChannelFeed(channel, () => render(undefined)));
	useEffect(() => () => feed.end(), [feed]);
	return feed;
}

const NEAR_TOP_PX = 400;

/** Return whether the window is scrolled down, where inserted rows would move what is read. */
function useScrolledAway(): boolean {
	const [isAway, setAway] = useState(false);
	useEffect(() => {
		const look = () => setAway(window.scrollY > NEAR_TOP_PX);
		look();
		window.addEventListener("scroll", look, { passive: true });
		return () => window.removeEventListener("scroll", look);
	}, []);
	return isAway;
}
