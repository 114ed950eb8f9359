/** What became of a stored message for each recipient, read again until it can change no more. */

import type { DeliveryState, Receipt } from "../../../clients/typescript/src/generated/rest.js";
import { useEvery } from "../every.js";
import { client, tenantId } from "../session.js";
import { Badge, Name, Problem, Time, useLoad } from "../ui/index.js";

const EVERY_MS = 2_000;
const FINAL: ReadonlySet<DeliveryState> = new Set<DeliveryState>(["acked", "dead_lettered", "skipped", "expired"]);
const TONES: Partial<Record<DeliveryState, "good" | "warn" | "bad">> = { acked: "good", delivered: "good", dead_lettered: "bad", expired: "bad", away: "warn" };
export function Receipts({ channel, seq }: { channel: string; seq: number }) {
	const page = useLoad(() => client.readReceipts(tenantId(), channel, String(seq), { limit: 200 }), [channel, seq]);
	const items = page.value?.items ?? [];
	useEvery(EVERY_MS, page.reload, page.error === null && items.some((each) => !FINAL.has(each.state)));
	return (
		<section aria-label="Receipts" class="receipts">
			<h3>Receipts</h3>
			<Problem error={page.error} />
			{page.value !== null && items.length === 0 && <p class="faint">No agent was subscribed when it was published.</p>}
			<ul>
				{items.map((receipt, index) => (
					<li key={receipt.agent_id ?? index}>
						<Badge tone={TONES[receipt.state] ?? "plain"}>{receipt.state.replace("_", " ")}</Badge> <Recipient receipt={receipt} />
					</li>
				))}
			</ul>
			{page.value?.next_cursor != null && <p class="faint">The first 200 recipients are shown.</p>}
		</section>
	);
}

function Recipient({ receipt }: { receipt: Receipt }) {
	return (
		<>
			<Name>{receipt.agent_handle ?? receipt.agent_id ?? "the queue"}</Name>
			{receipt.reason !== null && ` (${receipt.reason})`}
			{receipt.state === "away" && receipt.last_seen !== null && (
				<span class="faint">
					{" "}
					last seen <Time at={receipt.last_seen} relative />
				</span>
			)}
		</>
	);
}
