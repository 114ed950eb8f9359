/** What the tenant used, and what its plan leaves. */

import type { Limit, Metric, Usage, UsageItem } from "../../../clients/typescript/src/generated/rest.js";
import { useEvery } from "../every.js";
import { location, setQuery } from "../router.js";
import { client, isAdmin, tenantId } from "../session.js";
import { Card, type Column, List, Loading, Name, PageHead, Problem, Select, Table, Time, useLoad, usePages } from "../ui/index.js";
import { Bars } from "../usage/bars.js";
import { formatBytes, formatCount, formatLimit, formatStep } from "../usage/format.js";
import { periodsOf, type Span, SPANS, stepsOf, totalOf, valuesOf } from "../usage/series.js";

const RELOAD_MS = 30_000;

export function UsageScreen() {
	return (
		<>
			<PageHead title="Usage and limits" note="Hours and days are those of UTC; totals trail by at most a minute." />
			{isAdmin.value && <UsagePlots />}
			{isAdmin.value && <UsageParts />}
			<Limits />
		</>
	);
}

interface Plot {
	title: string;
	metric: Metric;
	format: (value: number) => string;
	/** Whether the values add up; a peak does not. */
	isSum: boolean;
}

const PLOTS: readonly Plot[] = [
	{ title: "Messages", metric: "messages_stored", format: formatCount, isSum: true },
	{ title: "Live messages", metric: "messages_live", format: formatCount, isSum: true },
	{ title: "Deliveries", metric: "deliveries", format: formatCount, isSum: true },
	{ title: "Bytes of messages", metric: "bytes_stored", format: formatBytes, isSum: true },
	{ title: "Connections at once", metric: "peak_connections", format: formatCount, isSum: false },
	{ title: "API calls", metric: "api_calls", format: formatCount, isSum: true },
];

interface Series {
	steps: readonly number[];
	items: readonly UsageItem[];
	asOf: string | null;
}

function UsagePlots() {
	const title = location.value.query.get("span");
	const span = SPANS.find((each) => each.title === title) ?? (SPANS[0] as Span);
	const usage = useLoad((signal) => readSeries(span, signal), [tenantId(), span.title]);
	useEvery(RELOAD_MS, usage.reload);
	const { value } = usage;
	return (
		<>
			<div class="filters">
				<Select label="Time" value={span.title} options={SPANS.map((each) => [each.title, each.title] as const)} onChange={(chosen) => setQuery({ span: chosen })} />
			</div>
			<Problem error={usage.error} onRetry={usage.reload} />
			{value === null && usage.isLoading && <Loading />}
			{value !== null && (
				<>
					<p class="faint">
						Counted up to <Time at={value.asOf} />. What a killed server counted in its last minute is missing.
					</p>
					<div class="columns">
						{PLOTS.map((plot) => (
							<PlotCard key={plot.metric} plot={plot} span={span} series={value} />
						))}
					</div>
				</>
			)}
		</>
	);
}

async function readSeries(span: Span, signal: AbortSignal): Promise<Series> {
	const now = new Date();
	const items: UsageItem[] = [];
	let asOf: string | null = null;
	for (const period of periodsOf(span, now)) {
		const read = async (cursor: string | null): Promise<Usage> => {
			const page = await client.readUsage(tenantId(), { period, every: span.every, cursor, limit: 200 }, { signal });
			asOf = page.as_of ?? asOf;
			return page;
		};
		for await (const item of client.all(read)) items.push(item);
	}
	return { steps: stepsOf(span, now), items, asOf };
}

function PlotCard({ plot, span, series }: { plot: Plot; span: Span; series: Series }) {
	const values = valuesOf(series.items, plot.metric, series.steps);
	const total = plot.isSum ? totalOf(values) : null;
	const rows = series.steps.map((step, index) => ({ step, value: values[index] ?? null })).reverse();
	return (
		<Card title={plot.title} actions={total === null ? undefined : <strong>{plot.format(total)}</strong>}>
			<Bars label={plot.title} steps={series.steps} values={values} format={plot.format} formatStep={(step) => formatStep(step, span.every)} />
			<details class="more">
				<summary>As a table</summary>
				<Table
					label={`${plot.title} as a table`}
					columns={[
						{ title: span.every === "hour" ? "Hour from" : "Day of UTC", cell: (row) => formatStep(row.step, span.every) },
						{ title: plot.title, align: "end", cell: (row) => (row.value === null ? "–" : plot.format(row.value)) },
					]}
					rows={rows}
					rowKey={(row) => row.step}
				/>
			</details>
		</Card>
	);
}

const PARTS = [["channel", "By channel"], ["agent", "By agent or person"]] as const;

/** What one channel, agent or person used. */
interface Part {
	id: string;
	name: string;
	values: Partial<Record<Metric, number | null>>;
}

/** The current month, divided. */
function UsageParts() {
	const by = location.value.query.get("by") === "agent" ? "agent" : "channel";
	const parts = usePages(async (_, signal) => ({ items: await readParts(by, signal), next_cursor: null }), [tenantId(), by]);
	useEvery(RELOAD_MS, parts.reload);
	return (
		<Card title="This month, divided">
			<p class="faint">Messages trail by up to 10 minutes.</p>
			<Select label="Divided" value={by} options={PARTS} onChange={(chosen) => setQuery({ by: chosen })} />
			<List label="Usage of this month, divided" pages={parts} columns={columnsOf(by)} rowKey={(each) => each.id} empty="Nothing was counted yet" />
		</Card>
	);
}

async function readParts(by: "agent" | "channel", signal: AbortSignal): Promise<Part[]> {
	const parts = new Map<string, Part>();
	const read = (cursor: string | null) => client.readUsage(tenantId(), { by, cursor, limit: 200 }, { signal });
	for await (const item of client.all(read)) {
		const id = item[by] ?? "";
		const part = parts.get(id) ?? { id, name: item[`${by}_handle`] ?? id.replace(/^usr:/, ""), values: {} };
		part.values[item.name] = item.value;
		parts.set(id, part);
	}
	return [...parts.values()].toSorted((a, b) => sentBy(b) - sentBy(a));
}

function sentBy({ values }: Part): number {
	return (values.messages_stored ?? 0) + (values.messages_live ?? 0);
}

function columnsOf(by: "agent" | "channel"): Column<Part>[] {
	const plots = PLOTS.slice(0, 4);
	return [
		{ title: by === "channel" ? "Channel" : "Agent or person", cell: (each) => <Name>{each.name}</Name> },
		...plots.map(({ title, metric, format }): Column<Part> => ({ title, align: "end", minor: metric === "messages_live", cell: ({ values }) => (values[metric] == null ? "–" : format(values[metric])) })),
	];
}

/** Return a limit's name as words; its value has the unit. */
function wordsOf(name: string): string {
	const words = name.replace(/_s$/, "").replaceAll("_", " ");
	return words.charAt(0).toUpperCase() + words.slice(1);
}

const LIMITS: readonly Column<Limit>[] = [
	{ title: "Limit", cell: (each) => wordsOf(each.name) },
	{ title: "Used", align: "end", cell: (each) => (each.used === null ? <span class="faint">–</span> : formatLimit(each.name, each.used)) },
	{ title: "Of", align: "end", cell: (each) => (each.limit === null ? "unlimited" : formatLimit(each.name, each.limit)) },
	{ title: "Left", align: "end", minor: true, cell: (each) => (each.left === null ? <span class="faint">–</span> : formatLimit(each.name, each.left)) },
	{ title: "Share", minor: true, cell: (each) => <Share limit={each} /> },
	{ title: "Free again", minor: true, cell: (each) => <Time at={each.resets_at} /> },
];

function Share({ limit }: { limit: Limit }) {
	if (limit.limit === null || limit.used === null || limit.limit === 0) return null;
	const share = limit.used / limit.limit;
	return <meter aria-label={`Used of ${wordsOf(limit.name)}`} value={Math.min(1, share)} min={0} max={1} high={0.8} optimum={0} title={`${Math.round(share * 100)} %`} />;
}

function Limits() {
	const limits = useLoad(() => client.readLimits(tenantId()), [tenantId()]);
	useEvery(RELOAD_MS, limits.reload);
	return (
		<Card title={limits.value === null ? "Limits" : `Limits of the plan ${limits.value.plan}`}>
			<Problem error={limits.error} onRetry={limits.reload} />
			{limits.value !== null && <Table label="Limits" columns={LIMITS} rows={limits.value.items} rowKey={(each) => each.name} />}
		</Card>
	);
}
