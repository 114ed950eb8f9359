/** The box that publishes a message, and shows what became of it. */

import { useEffect, useRef, useState } from "preact/hooks";

import type { Published } from "../../../clients/typescript/src/generated/rest.js";
import { client, tenantId } from "../session.js";
import { Button, Field, Form, Problem, Select, useAction } from "../ui/index.js";
import { type Draft, type DraftProblems, parseDraft } from "./draft.js";
import type { ChannelMessage } from "./message.js";
import { Receipts } from "./receipts.js";

interface PublishFormProps {
	channel: string;
	/** The message that this one answers. */
	answers?: ChannelMessage;
}

interface Sent {
	channel: string;
	published: Published;
}

/** A key makes a repeat safe: after a lost answer the same message is published again with the same one. */
function newKey(): string {
	return `console-${Array.from(crypto.getRandomValues(new Uint32Array(3)), (each) => each.toString(36)).join("")}`;
}

export function PublishForm({ channel, answers }: PublishFormProps) {
	const [draft, setDraft] = useState<Draft>({ isJson: true, data: "{}", key: newKey(), headers: "", replyTo: "" });
	const [problems, setProblems] = useState<DraftProblems>({});
	const [sent, setSent] = useState<Sent | null>(null);
	const { error, isBusy, run } = useAction();
	const change = (changes: Partial<Draft>) => setDraft({ ...draft, ...changes });
	const publish = () => {
		const { message, problems: found } = parseDraft(draft);
		setProblems(found ?? {});
		if (message === undefined) return;
		setSent(null);
		void run(async () => {
			const cause = answers === undefined ? {} : { caused_by: causeOf(answers) };
			setSent({ channel, published: await client.publish(tenantId(), channel, { ...message, ...cause }) });
			change({ key: newKey() });
		});
	};
	return (
		<Form label="Publish a message" onSubmit={publish}>
			<Select
				label="Kind of data"
				value={draft.isJson ? "json" : "text"}
				options={[["json", "JSON"], ["text", "Text"]]}
				onChange={(kind) => change({ isJson: kind === "json" })}
			/>
			<Field label="Data" value={draft.data} onInput={(data) => change({ data })} lines={5} code problem={problems.data ?? null} />
			<details class="more">
				<summary>Key, headers, answers</summary>
				<Field label="Key" value={draft.key} onInput={(key) => change({ key })} code hint="Within 10 minutes one key stores one message, however often it is published." />
				<Field label="Headers" value={draft.headers} onInput={(headers) => change({ headers })} lines={2} code hint="One name: value per line." problem={problems.headers ?? null} />
				<Field label="Reply to" value={draft.replyTo} onInput={(replyTo) => change({ replyTo })} code hint="A channel, or @ and an agent: where answers are expected." />
			</details>
			<Problem error={error} />
			<div class="buttons">
				<Button type="submit" kind="primary" busy={isBusy}>
					{answers === undefined ? "Publish" : "Publish the answer"} to {channel}
				</Button>
			</div>
			{sent !== null && <Outcome {...sent} />}
		</Form>
	);
}

function causeOf(message: ChannelMessage): string | { channel: string; seq: number; message_id: string } {
	return message.seq === null ? message.message_id : { channel: message.channel, seq: message.seq, message_id: message.message_id };
}

function Outcome({ channel, published }: Sent) {
	const { seq, duplicate, subscribers, connected } = published;
	const where = seq === null ? "It was sent, and is not stored." : duplicate ? `It was stored before, as ${seq}.` : `It is on disk, as ${seq}.`;
	const element = useRef<HTMLDivElement>(null);
	useEffect(() => element.current?.scrollIntoView({ block: "nearest" }), [published]);
	return (
		<div ref={element} role="status" class="outcome">
			<p>
				{where} {subscribers != null && `Subscribers: ${subscribers}, connected: ${connected ?? "unknown"}.`}
			</p>
			{seq !== null && !channel.startsWith("@") && <Receipts key={seq} channel={channel} seq={seq} />}
		</div>
	);
}
