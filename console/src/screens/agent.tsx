/** One agent: its presence, keys, subscriptions, and what may be changed. */

import { useState } from "preact/hooks";

import type { Agent, Key, Subscription } from "../../../clients/typescript/src/generated/rest.js";
import { complete, presenceOf } from "../agents.js";
import { BEHIND, CURSOR, MAY, STATE } from "../channels/subscription-columns.js";
import { KeyField } from "../key-field.js";
import { PresenceBadge } from "../presence.js";
import { keyProblem } from "../public-key.js";
import { go, tenantLink, type ScreenProps } from "../router.js";
import { canWrite, client, tenantId } from "../session.js";
import {
	Badge, Button, Card, Code, type Column, Confirm, Copy, Fact, Facts, Field, FormDialog, List, Loading, Name, PageHead, type Pages, Problem, Time,
	useLoad, usePages,
} from "../ui/index.js";

export function AgentScreen({ params }: ScreenProps) {
	const id = params["agent"] ?? "";
	const agent = useLoad(async () => complete(await client.readAgent(tenantId(), id)), [tenantId(), id]);
	const subscriptions = usePages((cursor) => client.listAgentSubscriptions(tenantId(), id, { cursor, limit: 200 }), [id, isHere(agent.value)]);
	if (agent.value === null) return agent.isLoading ? <Loading /> : <Problem error={agent.error} onRetry={agent.reload} />;
	return (
		<>
			<PageHead title={<Name>{agent.value.name}</Name>} note={agent.value.description === "" ? undefined : <bdi>{agent.value.description}</bdi>}>
				{canWrite.value && <Actions agent={agent.value} onChanged={agent.set} />}
			</PageHead>
			<About agent={agent.value} lastSeen={subscriptions.items[0]?.last_seen ?? null} />
			<Keys agent={agent.value} />
			<Subscriptions list={subscriptions} />
		</>
	);
}

function isHere(agent: Agent | null): boolean {
	return agent !== null && (presenceOf(agent)?.connected ?? false);
}

function About({ agent, lastSeen }: { agent: Agent; lastSeen: string | null }) {
	return (
		<Card>
			<Facts>
				<Fact name="Presence">
					<PresenceBadge agent={agent} />
				</Fact>
				{isHere(agent) ? (
					<Fact name="Connected since">
						<Time at={presenceOf(agent)?.since} />
					</Fact>
				) : (
					<Fact name="Last seen">
						<Time at={lastSeen} relative />
					</Fact>
				)}
				<Fact name="Login">{agent.status === "active" ? <Badge tone="good">allowed</Badge> : <Badge tone="bad">disabled</Badge>}</Fact>
				<Fact name="Handle">
					<Code>{agent.handle ?? "–"}</Code>
				</Fact>
				<Fact name="Id">
					<Code>{agent.id}</Code> <Copy text={agent.id} label="Copy the id" />
				</Fact>
				<Fact name="Capabilities">
					{agent.capabilities.length === 0 ? <span class="faint">none</span> : agent.capabilities.map((each) => <Badge key={each}>{each}</Badge>)}
				</Fact>
				<Fact name="Created">
					<Time at={agent.created_at} />
				</Fact>
				<Fact name="Changed">
					<Time at={agent.updated_at} />
				</Fact>
			</Facts>
		</Card>
	);
}

interface ActionsProps {
	agent: Agent;
	onChanged: (agent: Agent) => void;
}

function Actions({ agent, onChanged }: ActionsProps) {
	const [asked, setAsked] = useState<"edit" | "status" | "delete" | null>(null);
	const isActive = agent.status === "active";
	const close = () => setAsked(null);
	return (
		<>
			<Button onClick={() => setAsked("edit")}>Edit</Button>
			<Button onClick={() => setAsked("status")}>{isActive ? "Disable" : "Enable"}</Button>
			<Button kind="danger" onClick={() => setAsked("delete")}>
				Delete
			</Button>
			{asked === "edit" && <Edit agent={agent} onChanged={onChanged} onClose={close} />}
			{asked === "status" && (
				<Confirm
					title={isActive ? "Disable this agent?" : "Enable this agent?"}
					action={isActive ? "Disable" : "Enable"}
					act={async () => onChanged(complete(await client.changeAgent(tenantId(), agent.id, { status: isActive ? "disabled" : "active" })))}
					onClose={close}
				>
					<p>
						{isActive
							? "Its connections and tokens end within 5 seconds, and it cannot log in. Its messages wait."
							: "It can log in again with its keys."}
					</p>
				</Confirm>
			)}
			{asked === "delete" && (
				<Confirm
					title="Delete this agent?"
					action="Delete"
					act={async () => {
						await client.deleteAgent(tenantId(), agent.id);
						go(tenantLink("agents"), { replace: true });
					}}
					onClose={close}
				>
					<p>
						<Name>{agent.name}</Name> is removed with its keys, subscriptions and inbox. This cannot be undone.
					</p>
				</Confirm>
			)}
		</>
	);
}

function Edit({ agent, onChanged, onClose }: ActionsProps & { onClose: () => void }) {
	const [name, setName] = useState(agent.name);
	const [description, setDescription] = useState(agent.description);
	const [capabilities, setCapabilities] = useState(agent.capabilities.join("\n"));
	const save = async () => {
		const lines = capabilities.split("\n").map((each) => each.trim()).filter(Boolean);
		onChanged(complete(await client.changeAgent(tenantId(), agent.id, { name, description, capabilities: lines })));
	};
	return (
		<FormDialog title="Edit the agent" action="Save" act={save} onClose={onClose}>
			<Field label="Name" value={name} onInput={setName} required maxLength={64} />
			<Field label="Description" value={description} onInput={setDescription} lines={3} maxLength={1024} />
			<Field label="Capabilities" value={capabilities} onInput={setCapabilities} lines={4} hint="One per line. Other agents find it by them." />
		</FormDialog>
	);
}

function Keys({ agent }: { agent: Agent }) {
	const keys = usePages((cursor) => client.listKeys(tenantId(), agent.id, { cursor }), [agent.id, agent.updated_at]);
	const [isAdding, setAdding] = useState(false);
	const [asked, setAsked] = useState<{ entry: Key; act: "revoke" | "status" } | null>(null);
	const columns: readonly Column<Key>[] = [
		{ title: "Fingerprint", cell: (key) => <Code>{key.fingerprint ?? "refused kind of key"}</Code> },
		{ title: "State", cell: (key) => <KeyState entry={key} /> },
		{ title: "Added", minor: true, cell: (key) => <Time at={key.added_at} /> },
		{ title: "Ends", minor: true, cell: (key) => <Time at={key.not_after} /> },
		{ title: "Actions", align: "end", cell: (key) => canWrite.value && <KeyActions entry={key} onAsk={(act) => setAsked({ entry: key, act })} /> },
	];
	return (
		<Card title="Keys" actions={canWrite.value && <Button onClick={() => setAdding(true)}>Add a key</Button>}>
			<p class="note">To rotate: add the new key, give it to the agent, and then revoke the old one. Both work meanwhile.</p>
			<List label="Keys" pages={keys} columns={columns} rowKey={(key) => key.id} empty="No key" />
			{isAdding && <AddKey agent={agent} onAdded={keys.reload} onClose={() => setAdding(false)} />}
			{asked !== null && <KeyQuestion agent={agent} {...asked} onDone={keys.reload} onClose={() => setAsked(null)} />}
		</Card>
	);
}

function KeyState({ entry }: { entry: Key }) {
	if (entry.status === "disabled") return <Badge tone="bad">disabled</Badge>;
	return entry.first ? <Badge tone="accent">first</Badge> : <Badge tone="good">active</Badge>;
}

function KeyActions({ entry, onAsk }: { entry: Key; onAsk: (act: "revoke" | "status") => void }) {
	return (
		<span class="row-actions">
			<Button kind="quiet" onClick={() => onAsk("status")} label={`${entry.status === "active" ? "Disable" : "Enable"} ${entry.fingerprint ?? entry.id}`}>
				{entry.status === "active" ? "Disable" : "Enable"}
			</Button>
			<Button kind="quiet" onClick={() => onAsk("revoke")} label={`Revoke ${entry.fingerprint ?? entry.id}`}>
				Revoke
			</Button>
		</span>
	);
}

interface KeyQuestionProps {
	agent: Agent;
	entry: Key;
	act: "revoke" | "status";
	onDone: () => void;
	onClose: () => void;
}

function KeyQuestion({ agent, entry, act, onDone, onClose }: KeyQuestionProps) {
	const isActive = entry.status === "active";
	const word = act === "revoke" ? "Revoke" : isActive ? "Disable" : "Enable";
	const change = async () => {
		if (act === "revoke") await client.revokeKey(tenantId(), agent.id, entry.id);
		else await client.changeKey(tenantId(), agent.id, entry.id, { status: isActive ? "disabled" : "active" });
		onDone();
	};
	return (
		<Confirm title={`${word} this key?`} action={word} act={change} onClose={onClose}>
			<p>
				<Code>{entry.fingerprint ?? entry.id}</Code>
			</p>
			<p>{act === "status" && !isActive ? "The agent can log in with it again." : "Logins with it are refused, and their connections end within 5 seconds."}</p>
		</Confirm>
	);
}

interface AddKeyProps {
	agent: Agent;
	onAdded: () => void;
	onClose: () => void;
}

function AddKey({ agent, onAdded, onClose }: AddKeyProps) {
	const [line, setLine] = useState("");
	const [until, setUntil] = useState("");
	const add = async () => {
		const end = until === "" ? null : new Date(until).toISOString();
		await client.addKey(tenantId(), agent.id, { public_key: line.trim(), not_after: end });
		onAdded();
	};
	return (
		<FormDialog title="Add a key" action="Add" act={add} onClose={onClose} disabled={keyProblem(line) !== null}>
			<KeyField value={line} onInput={setLine} />
			<Field label="Ends" type="datetime-local" value={until} onInput={setUntil} hint="Your local time. Empty: it does not end." />
		</FormDialog>
	);
}

const SUBSCRIPTIONS: readonly Column<Subscription>[] = [
	{
		title: "Channel",
		cell: (each) => (
			<a href={tenantLink("channels", each.channel_id)}>
				<Code>{each.channel_handle ?? each.channel_id}</Code>
			</a>
		),
	},
	STATE,
	MAY,
	CURSOR,
	BEHIND,
	{ title: "Since", minor: true, cell: (each) => <Time at={each.created_at} /> },
];

function Subscriptions({ list }: { list: Pages<Subscription> }) {
	return (
		<Card title="Subscriptions">
			<List label="Subscriptions" pages={list} columns={SUBSCRIPTIONS} rowKey={(each) => each.channel_id} empty="No subscription">
				A channel's page subscribes agents to it.
			</List>
		</Card>
	);
}
