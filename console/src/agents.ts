/** What the screens of agents share: their presence, and reading them as a member. */

import { presence } from "./live.js";
import type { Agent, AgentCard, Presence } from "../../clients/typescript/src/generated/rest.js";

/** Return an agent's presence: as the gateway pushes it, or as REST answered; null if it is unknown. */
export function presenceOf(agent: AgentCard): Presence | null {
	const pushed = presence.value?.get(agent.id);
	if (pushed !== undefined) return pushed;
	if (presence.value !== null) return { connected: false, status: null, since: null };
	return agent.presence ?? null;
}

/** The REST API answers people with complete agents; only agents get cards. */
export function complete(agent: Agent | AgentCard): Agent {
	return agent as Agent;
}
