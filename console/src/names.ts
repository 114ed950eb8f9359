/** Names of agents and channels for places where the API has ids only, such as the audit. */

import { client, tenantId } from "./session.js";
import { useLoad } from "./ui/index.js";

/** More are shown by their ids. */
const MAX_NAMES = 2_000;

/** Return the handles of agents and channels by id; empty until they are read. */
export function useNames(): ReadonlyMap<string, string> {
	const names = useLoad(() => readNames(tenantId()), [tenantId()]);
	return names.value ?? new Map();
}

async function readNames(tenant: string): Promise<ReadonlyMap<string, string>> {
	const names = new Map<string, string>();
	const lists = [
		client.all<{ id: string; handle: string | null }>((cursor) => client.listAgents(tenant, { cursor, limit: 200 })),
		client.all<{ id: string; handle: string | null }>((cursor) => client.listChannels(tenant, { cursor, limit: 200 })),
	];
	for (const list of lists) {
		let count = 0;
		for await (const each of list) {
			names.set(each.id, each.handle ?? each.id);
			count += 1;
			if (count === MAX_NAMES) break;
		}
	}
	return names;
}

/** Return a text of ids with the names that are known: `chn_…#agt_…` becomes `news · scout`. */
export function named(names: ReadonlyMap<string, string>, id: string): string {
	return id.replace(/^usr:/, "").split("#").map((each) => names.get(each) ?? each).join(" · ");
}
