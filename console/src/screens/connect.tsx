/** Connect an agent: name, key, program, and then the page waits for the agent and for its first message. */

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";

import type { Agent, Channel } from "../../../clients/typescript/src/generated/rest.js";
import { complete, presenceOf } from "../agents.js";
import { KeyField } from "../key-field.js";
import { watch } from "../live.js";
import type { ChannelMessage } from "../messages/message.js";
import { keyProblem } from "../public-key.js";
import { tenantLink } from "../router.js";
import { client, tenantId } from "../session.js";
import { keygenSnippet, mcpSnippet, type Place, pythonSnippet, shellSnippet } from "../snippets.js";
import { Button, ButtonLink, Card, Field, Form, JsonTree, PageHead, Problem, Snippet, Tabs, useAction, useLoad } from "../ui/index.js";

/** The channel that is made where there is none yet. */
const FIRST_CHANNEL = "news";

/** A new agent, and the channel in which its first message is awaited. */
interface Made {
	agent: Agent;
	channel: Channel;
}

export function ConnectScreen() {
	const [made, setMade] = useState<Made | null>(null);
	return (
		<>
			<PageHead title="Connect an agent" note="The agent keeps its private key. ArtCafe gets the public half, and never a password." />
			<div class="steps">{made === null ? <Register onMade={setMade} /> : <Await {...made} />}</div>
		</>
	);
}

function Register({ onMade }: { onMade: (made: Made) => void }) {
	const [name, setName] = useState("");
	const [key, setKey] = useState("");
	const { error, isBusy, run } = useAction();
	const create = () =>
		run(async () => {
			const channel = await firstChannel();
			const agent = complete(await client.createAgent(tenantId(), { name, public_key: key.trim() }));
			await client.putSubscription(tenantId(), channel.id, agent.id, { permissions: ["receive", "publish"] });
			onMade({ agent, channel });
		});
	return (
		<Form label="Connect an agent" onSubmit={create}>
			<Step number={1} title="Name it">
				<Field label="Name" value={name} onInput={setName} required maxLength={64} hint="What people read, such as Scout." />
			</Step>
			<Step number={2} title="Make its key, where it runs">
				<Snippet label="the command" text={keygenSnippet(fileOf(name))} />
				<KeyField value={key} onInput={setKey} />
			</Step>
			<Problem error={error} />
			<Button type="submit" kind="primary" busy={isBusy} disabled={keyProblem(key) !== null}>
				Register the agent
			</Button>
		</Form>
	);
}

/** Return a file name like the handle that the server makes of the name. */
function fileOf(name: string): string {
	const handle = name.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "");
	return handle === "" ? "agent" : handle.slice(0, 64);
}

/** Return a channel for the first message: any that agents may use, or a new one. */
async function firstChannel(): Promise<Channel> {
	const { items } = await client.listChannels(tenantId(), { limit: 200 });
	const fit = items.find((channel) => channel.type === "broadcast" && channel.dead_letter_of === null);
	return fit ?? client.createChannel(tenantId(), { name: FIRST_CHANNEL }, { idempotencyKey: `first-channel-${tenantId()}` });
}

function Await({ agent, channel }: Made) {
	const message = useFirstMessage(agent, channel);
	const isConnected = useWasConnected(agent);
	const handle = agent.handle ?? agent.id;
	const place: Place = { url: window.location.origin, tenant: tenantId(), agent: handle, channel: channel.handle ?? channel.id };
	return (
		<>
			<Step number={3} title="Run it">
				<p>In the folder with the key {handle}, on a machine that reaches this server:</p>
				<Tabs
					label="Programs"
					tabs={[
						{ name: "Python", content: () => <Snippet label="the Python program" text={pythonSnippet(place)} /> },
						{ name: "Shell", content: () => <Snippet label="the shell commands" text={shellSnippet(place)} /> },
						{ name: "MCP", content: () => <Snippet label="the MCP settings" text={mcpSnippet(place)} /> },
					]}
				/>
			</Step>
			<Milestone isDone={isConnected} done={`${agent.name} is connected.`} open={`Waiting for ${agent.name} to connect …`} />
			<Milestone
				isDone={message !== null}
				done={`${agent.name} has sent its first message to ${channel.name}.`}
				open={`Waiting for its first message in ${channel.name} …`}
			/>
			{message !== null && (
				<Card title="The first message">
					<JsonTree value={message.data} />
				</Card>
			)}
			<div class="buttons">
				<ButtonLink kind={message === null ? "plain" : "primary"} href={tenantLink("agents", agent.id)}>
					To the agent
				</ButtonLink>
			</div>
		</>
	);
}

/** Return whether the agent has been connected since the page waits: a program that ended at once counts too. */
function useWasConnected(agent: Agent): boolean {
	const [was, setWas] = useState(false);
	const is = presenceOf(agent)?.connected ?? false;
	useEffect(() => {
		if (is) setWas(true);
	}, [is]);
	return was || is;
}

function useFirstMessage(agent: Agent, channel: Channel): ChannelMessage | null {
	const [message, setMessage] = useState<ChannelMessage | null>(null);
	const head = useLoad(() => client.readChannel(tenantId(), channel.id), [channel.id]);
	const after = head.value?.last_seq;
	useEffect(() => {
		if (after == null) return undefined;
		const take = (each: ChannelMessage) => {
			if (each.from === agent.id) setMessage((first) => first ?? each);
		};
		return watch(channel.id, after, { onMessage: take, onGap: () => {}, onError: () => {} });
	}, [after, agent.id, channel.id]);
	return message;
}

interface StepProps {
	number: number;
	title: string;
	children: ComponentChildren;
}

function Step({ number, title, children }: StepProps) {
	return (
		<section class="step">
			<h2>
				<span class="number">{number}</span> {title}
			</h2>
			{children}
		</section>
	);
}

function Milestone({ isDone, done, open }: { isDone: boolean; done: string; open: string }) {
	return (
		<p class={isDone ? "milestone done" : "milestone"} role="status">
			<span class="mark" aria-hidden="true">
				{isDone ? "✓" : "…"}
			</span>
			<bdi>{isDone ? done : open}</bdi>
		</p>
	);
}
