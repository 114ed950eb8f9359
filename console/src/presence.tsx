/** Whether an agent is connected, and the status that it set. */

import type { AgentCard } from "../../clients/typescript/src/generated/rest.js";
import { presenceOf } from "./agents.js";

export function PresenceBadge({ agent }: { agent: AgentCard }) {
	const presence = presenceOf(agent);
	if (presence === null) return <span class="faint">unknown</span>;
	const { connected, status } = presence;
	return (
		<span class={connected ? "presence here" : "presence"}>
			<span class="dot" aria-hidden="true" />
			<bdi>{connected ? (status ?? "connected") : "away"}</bdi>
		</span>
	);
}
