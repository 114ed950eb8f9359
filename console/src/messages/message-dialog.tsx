/** One message with all its fields, its data as a tree, and what became of it for each recipient. */

import { useState } from "preact/hooks";

import { tenantLink } from "../router.js";
import { canWrite } from "../session.js";
import { Button, Code, Copy, Dialog, Fact, Facts, JsonTree, Name, Time } from "../ui/index.js";
import { type ChannelMessage, conversationOf, senderName } from "./message.js";
import { PublishForm } from "./publish-form.js";
import { Receipts } from "./receipts.js";

export function MessageDialog({ message, onClose }: { message: ChannelMessage; onClose: () => void }) {
	const [isAnswering, setAnswering] = useState(false);
	const isScheduled = message.seq === null && message.deliver_at != null;
	const place = message.seq === null ? "" : ` ${message.seq}`;
	return (
		<Dialog title={`Message${place} in ${message.channel_handle ?? message.channel}`} onClose={onClose}>
			<MessageFacts message={message} />
			<section aria-label="Data" class="data">
				<Copy text={JSON.stringify(message.data, null, 2)} label="Copy the data" />
				<JsonTree value={message.data} />
			</section>
			{message.seq !== null && <Receipts channel={message.channel} seq={message.seq} />}
			{!isScheduled && (
				<div class="buttons">
					<a class="button plain" href={tenantLink("conversations", conversationOf(message))} onClick={onClose}>
						Show the conversation
					</a>
					{canWrite.value && !isAnswering && <Button onClick={() => setAnswering(true)}>Answer</Button>}
				</div>
			)}
			{isAnswering && <PublishForm channel={message.reply_to ?? message.channel_handle ?? message.channel} answers={message} />}
		</Dialog>
	);
}

function MessageFacts({ message }: { message: ChannelMessage }) {
	const { dead_letter: letter, redriven } = message;
	return (
		<Facts>
			<Fact name="From">
				<Sender message={message} />
			</Fact>
			<Fact name="Published">
				<Time at={message.time} /> <Code>{message.time}</Code>
			</Fact>
			<Fact name="Id">
				<Code>{message.message_id}</Code> <Copy text={message.message_id} label="Copy the id" />
			</Fact>
			{message.reply_to != null && (
				<Fact name="Reply to">
					<Code>{message.reply_to}</Code>
				</Fact>
			)}
			{message.caused_by != null && (
				<Fact name="Answers">
					<Code>{message.caused_by}</Code> (answer {message.hops} of its chain)
				</Fact>
			)}
			{message.expires_at != null && (
				<Fact name="Expires">
					<Time at={message.expires_at} />
				</Fact>
			)}
			{message.deliver_at != null && (
				<Fact name="Due">
					<Time at={message.deliver_at} />
				</Fact>
			)}
			{letter != null && (
				<Fact name="Dead letter">
					{letter.reason} after {letter.deliveries} deliveries of <Code>{`${letter.channel} #${letter.seq}`}</Code>, <Time at={letter.time} />
				</Fact>
			)}
			{redriven != null && (
				<Fact name="Sent back">
					{redriven.times}×, by <Name>{redriven.by}</Name>, <Time at={redriven.time} />
				</Fact>
			)}
			{Object.entries(message.headers).map(([name, value]) => (
				<Fact key={name} name={`Header ${name}`}>
					<Code>{value}</Code>
				</Fact>
			))}
		</Facts>
	);
}

function Sender({ message }: { message: ChannelMessage }) {
	if (message.from.startsWith("usr:")) return <Name>{senderName(message)}</Name>;
	return (
		<a href={tenantLink("agents", message.from)}>
			<Name>{senderName(message)}</Name>
		</a>
	);
}
