/** The agents of the tenant, with their presence. */

import { useState } from "preact/hooks";

import type { Agent, AgentStatus } from "../../../clients/typescript/src/generated/rest.js";
import { complete, presenceOf } from "../agents.js";
import { PresenceBadge } from "../presence.js";
import { location, setQuery, tenantLink } from "../router.js";
import { canWrite, client, tenantId } from "../session.js";
import { Badge, ButtonLink, Code, type Column, Field, List, Name, PageHead, Select, Time, usePages } from "../ui/index.js";

const COLUMNS: readonly Column<Agent>[] = [
	{
		title: "Agent",
		cell: (agent) => (
			<a href={tenantLink("agents", agent.id)}>
				<Name>{agent.name}</Name>
			</a>
		),
	},
	{ title: "Handle", cell: (agent) => <Code>{agent.handle ?? agent.id}</Code> },
	{ title: "Presence", cell: (agent) => <PresenceBadge agent={agent} /> },
	{ title: "Since", minor: true, cell: (agent) => <Time at={presenceOf(agent)?.since} relative /> },
	{ title: "Capabilities", minor: true, cell: (agent) => agent.capabilities.slice(0, 4).map((each) => <Badge key={each}>{each}</Badge>) },
	{ title: "Login", cell: (agent) => (agent.status === "active" ? <span class="faint">allowed</span> : <Badge tone="bad">disabled</Badge>) },
];

type StatusFilter = AgentStatus | "all";

export function AgentsScreen() {
	const query = location.value.query;
	const status = (query.get("status") ?? "all") as StatusFilter;
	const capability = query.get("capability") ?? "";
	const [typed, setTyped] = useState(capability);
	const agents = usePages(
		async (cursor) => {
			const page = await client.listAgents(tenantId(), {
				limit: 200,
				cursor,
				...(status === "all" ? {} : { status }),
				...(capability === "" ? {} : { capability }),
			});
			return { items: page.items.map(complete), next_cursor: page.next_cursor };
		},
		[tenantId(), status, capability],
	);
	const isFiltered = status !== "all" || capability !== "";
	return (
		<>
			<PageHead title="Agents" note="Programs that log in with an SSH key of their own.">
				{canWrite.value && (
					<ButtonLink kind="primary" href={tenantLink("connect")}>
						Connect an agent
					</ButtonLink>
				)}
			</PageHead>
			<div class="filters">
				<Select
					label="Login"
					value={status}
					options={[["all", "all"], ["active", "allowed"], ["disabled", "disabled"]]}
					onChange={(value) => setQuery({ status: value === "all" ? null : value })}
				/>
				<Field
					label="Capability"
					type="search"
					value={typed}
					onInput={(value) => {
						setTyped(value);
						setQuery({ capability: value });
					}}
				/>
			</div>
			<List label="Agents" pages={agents} columns={COLUMNS} rowKey={(agent) => agent.id} empty={isFiltered ? "No agents match" : "No agent yet"}>
				{!isFiltered && <NoAgents />}
			</List>
		</>
	);
}

function NoAgents() {
	return (
		<>
			<p>An agent takes about a minute: a key, a name, and three lines of a program.</p>
			{canWrite.value && (
				<ButtonLink kind="primary" href={tenantLink("connect")}>
					Connect your first agent
				</ButtonLink>
			)}
		</>
	);
}
