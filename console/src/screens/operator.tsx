/** The state of the platform, for its operators: servers, NATS, what the server needs, and suspended tenants. */

import type { Dependency, FleetServer, NatsServer, PlatformState, SuspendedTenant } from "../../../clients/typescript/src/generated/rest.js";
import { useEvery } from "../every.js";
import { client, me } from "../session.js";
import { Badge, Button, Card, Code, type Column, Count, Empty, Fact, Facts, Loading, Name, PageHead, Problem, Table, Time, useLoad, usePages } from "../ui/index.js";
import { formatBytes } from "../usage/format.js";

const RELOAD_MS = 10_000;

export function OperatorScreen() {
	if (me.value?.is_operator !== true) return <Empty title="Only operators of the platform see this page">The setting OPERATORS of the servers names them.</Empty>;
	return (
		<>
			<PageHead title="Platform" note="A dash is unknown, or has no meaning there." />
			<State />
			<Suspended />
		</>
	);
}

function State() {
	const state = useLoad((signal) => client.readPlatformState({ signal }), []);
	useEvery(RELOAD_MS, state.reload);
	const { value } = state;
	return (
		<>
			<Problem error={state.error} onRetry={state.reload} />
			{value === null && state.isLoading && <Loading />}
			{value !== null && (
				<>
					<p class="faint">
						As of <Time at={value.time} />, as the server <Code>{value.server}</Code> sees it.
					</p>
					<Card title="This server needs">
						<Table label="What this server needs" columns={NEEDS} rows={value.readiness} rowKey={(each) => each.name} />
					</Card>
					<Card title="Servers">
						{!value.is_complete && <p class="faint">NATS cannot be reached, so other servers may be missing.</p>}
						<Table label="Servers" columns={SERVERS} rows={value.servers} rowKey={(each) => each.id} />
					</Card>
					<Nats state={value} />
				</>
			)}
		</>
	);
}

function Nats({ state: { nats } }: { state: PlatformState }) {
	return (
		<Card title="NATS">
			<Facts>
				<Fact name="Connection">
					<Light good={nats.is_connected} yes="connected" no={nats.problem ?? "not connected"} />
				</Fact>
				<Fact name="Cluster">{nats.cluster ?? "–"}</Fact>
				<Fact name="Servers">
					<Count of={nats.size} />
				</Fact>
				<Fact name="Leader">{nats.leader ?? "–"}</Fact>
			</Facts>
			{nats.servers === null ? (
				<p class="faint">No NATS server answers.</p>
			) : (
				<Table label="NATS servers" columns={NATS} rows={nats.servers} rowKey={(each) => each.name} />
			)}
		</Card>
	);
}

function Suspended() {
	const pages = usePages((cursor, signal) => client.listSuspendedTenants({ cursor, limit: 200 }, { signal }), []);
	return (
		<Card title="Suspended tenants" actions={<Button onClick={pages.reload}>Read again</Button>}>
			<Problem error={pages.error} onRetry={pages.reload} />
			{pages.value !== null && pages.items.length === 0 && <p class="faint">{pages.hasMore ? "None so far." : "No tenant is suspended."}</p>}
			{pages.items.length > 0 && <Table label="Suspended tenants" columns={TENANTS} rows={pages.items} rowKey={(each) => each.id} />}
			{pages.hasMore && <Button onClick={pages.loadMore}>Search the next 1,000 tenants</Button>}
		</Card>
	);
}

/** A word for a state; a dash for null, which is unknown. */
function Light({ good, yes, no }: { good: boolean | null; yes: string; no: string }) {
	return good === null ? <span class="faint">–</span> : <Badge tone={good ? "good" : "bad"}>{good ? yes : no}</Badge>;
}

const NEEDS: readonly Column<Dependency>[] = [
	{ title: "Name", cell: (each) => each.name },
	{ title: "State", cell: (each) => <Light good={each.is_ready} yes="ready" no="not ready" /> },
	{ title: "Problem", cell: (each) => each.problem !== null && <Name>{each.problem}</Name> },
];

const SERVERS: readonly Column<FleetServer>[] = [
	{ title: "Host", cell: (each) => each.host ?? "–" },
	{ title: "State", cell: (each) => <Light good={each.state === "up"} yes="up" no="silent" /> },
	{ title: "Process", minor: true, cell: (each) => (each.process === null ? "–" : `${each.process} of ${each.processes}`) },
	{ title: "Version", cell: (each) => each.version ?? "–" },
	{ title: "Started", minor: true, cell: (each) => <Time at={each.started_at} /> },
	{ title: "Heard", minor: true, cell: (each) => <Time at={each.heard_at} relative /> },
	{ title: "Connections", align: "end", cell: (each) => <Count of={each.connections} /> },
	{ title: "Sessions", align: "end", minor: true, cell: (each) => <Count of={each.sessions} /> },
	{ title: "Id", minor: true, cell: (each) => <Code>{each.id}</Code> },
];

const NATS: readonly Column<NatsServer>[] = [
	{ title: "Name", cell: (each) => each.name },
	{ title: "State", cell: (each) => <Light good={each.answers} yes="up" no="silent" /> },
	{ title: "Current", cell: (each) => (each.is_leader === true ? "leader" : <Light good={each.is_current} yes="current" no="behind" />) },
	{ title: "Lag", align: "end", cell: (each) => <Count of={each.lag} /> },
	{ title: "JetStream", minor: true, cell: (each) => <Light good={each.jetstream} yes="on" no="off" /> },
	{ title: "Version", minor: true, cell: (each) => each.version ?? "–" },
	{ title: "Started", minor: true, cell: (each) => <Time at={each.started_at} /> },
	{ title: "Streams", align: "end", minor: true, cell: (each) => <Count of={each.streams} /> },
	{ title: "Stored", align: "end", minor: true, cell: (each) => (each.stored_bytes === null ? "–" : formatBytes(each.stored_bytes)) },
];

const TENANTS: readonly Column<SuspendedTenant>[] = [
	{ title: "Tenant", cell: (each) => <Code>{each.id}</Code> },
	{ title: "Plan", minor: true, cell: (each) => each.plan },
	{ title: "Suspended", cell: (each) => <Time at={each.suspended_at} /> },
	{ title: "Created", minor: true, cell: (each) => <Time at={each.created_at} /> },
];
