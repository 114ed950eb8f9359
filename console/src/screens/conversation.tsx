/** One conversation: the messages that answer each other, over channels, and the guard that stops loops. */

import { useEffect, useState } from "preact/hooks";

import type { ArtcafeError } from "../../../clients/typescript/src/errors.js";
import type { Chain } from "../../../clients/typescript/src/generated/rest.js";
import { ChainCard } from "../messages/chain-card.js";
import { belongsTo, threadRows, type ThreadRow } from "../messages/conversation.js";
import { findConversation, type Found } from "../messages/conversation-search.js";
import { type ChannelMessage, previewOf, senderName } from "../messages/message.js";
import { MessageDialog } from "../messages/message-dialog.js";
import { watch } from "../live.js";
import { location, type ScreenProps } from "../router.js";
import { client, tenantId } from "../session.js";
import { Badge, Code, Count, Empty, Loading, Name, PageHead, Problem, Time, problemOf, useLoad } from "../ui/index.js";

const NOTHING: Found = { messages: [], read: 0, channels: 0, unfinished: [] };
/** The deepest level that is drawn further in. */
const MAX_INDENT = 8;

export function ConversationScreen({ params }: ScreenProps) {
	const id = params["chain"] ?? "";
	const chain = useLoad(() => readChain(id), [tenantId(), id]);
	return (
		<>
			<PageHead title="Conversation" note="Messages that answer each other. Viewing acknowledges nothing." />
			<Problem error={chain.error} onRetry={chain.reload} />
			{chain.value?.state != null && <ChainCard chain={chain.value.state} onChanged={(state) => chain.set({ state })} />}
			{chain.value === null ? chain.isLoading && <Loading /> : <Thread id={id} state={chain.value.state} />}
		</>
	);
}

/** A message that nobody answered, or whose chain is older than a day, has no state. */
async function readChain(id: string): Promise<{ state: Chain | null }> {
	try {
		return { state: await client.readChain(tenantId(), id) };
	} catch (error) {
		if (problemOf(error).code === "chain_not_found") return { state: null };
		throw error;
	}
}

function Thread({ id, state }: { id: string; state: Chain | null }) {
	const { found, isSearching, error } = useConversation(id, state);
	const [opened, setOpened] = useState<ChannelMessage | null>(null);
	const rows = threadRows(found.messages);
	return (
		<>
			<Problem error={error} />
			<p role="status" class="faint">
				{isSearching ? "Searching: " : ""}
				<Count of={rows.length} />
				{state === null ? " messages" : ` of ${state.messages} messages`}, in {found.read} of {found.channels} channels.
				{found.unfinished.length > 0 && ` Not all later messages were read in: ${found.unfinished.join(", ")}.`}
				{state !== null && !isSearching && rows.length < state.messages && " The others are in inboxes, which only their agents read, in live channels, or were removed."}
			</p>
			{!isSearching && rows.length === 0 && <Empty title="No message of this conversation is stored" />}
			<ol class="thread">
				{rows.map((row) => (
					<ThreadItem key={row.message.message_id} row={row} onOpen={setOpened} />
				))}
			</ol>
			{opened !== null && <MessageDialog message={opened} onClose={() => setOpened(null)} />}
		</>
	);
}

function ThreadItem({ row: { message, depth, isCauseMissing }, onOpen }: { row: ThreadRow; onOpen: (message: ChannelMessage) => void }) {
	return (
		<li class={`level-${Math.min(depth, MAX_INDENT)}`}>
			<header>
				<strong>
					<Name>{senderName(message)}</Name>
				</strong>
				<span class="faint">
					in <Code>{message.channel_handle ?? message.channel}</Code>
				</span>
				<Time at={message.time} />
				{depth > MAX_INDENT && <Badge>answer {depth}</Badge>}
				{isCauseMissing && <Badge tone="warn">answers a message that is not shown</Badge>}
			</header>
			<button type="button" class="row-button" dir="auto" onClick={() => onOpen(message)}>
				{previewOf(message.data)}
			</button>
		</li>
	);
}

interface Conversation {
	found: Found;
	isSearching: boolean;
	error: ArtcafeError | null;
}

/** Search the conversation, and then watch its channels for further answers. */
function useConversation(chain: string, state: Chain | null): Conversation {
	const [found, setFound] = useState<Found>(NOTHING);
	const [isSearching, setSearching] = useState(true);
	const [error, setError] = useState<ArtcafeError | null>(null);
	const likely = location.value.query.get("channel");
	useEffect(() => {
		const abort = new AbortController();
		const search = { tenant: tenantId(), chain, state, likely: likely === null ? [] : [likely], signal: abort.signal, onProgress: setFound };
		findConversation(search).then(
			() => !abort.signal.aborted && setSearching(false),
			(problem: unknown) => (setSearching(false), setError(problemOf(problem))),
		);
		return () => abort.abort();
	}, [chain]);
	const channels = isSearching ? "" : [...new Set(found.messages.map((each) => each.channel))].sort().join(" ");
	useEffect(() => {
		const add = (message: ChannelMessage) =>
			setFound((last) => (last.messages.some((each) => each.message_id === message.message_id) ? last : { ...last, messages: [...last.messages, message] }));
		const last = (channel: string) => Math.max(...found.messages.filter((each) => each.channel === channel).map((each) => each.seq ?? 0));
		const ends = channels.split(" ").filter(Boolean).map((channel) =>
			watch(channel, last(channel), {
				onMessage: (message) => belongsTo(message as ChannelMessage, chain) && add(message as ChannelMessage),
				onGap: () => {},
				onError: setError,
			}),
		);
		return () => ends.forEach((end) => end());
	}, [chain, channels]);
	return { found, isSearching, error };
}
