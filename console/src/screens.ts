/** The table of the screens: a screen is one row here and one file in `screens/`. */

import type { FunctionComponent } from "preact";

import type { Role } from "../../clients/typescript/src/generated/rest.js";
import type { ScreenProps } from "./router.js";
import { AgentScreen } from "./screens/agent.js";
import { AgentsScreen } from "./screens/agents.js";
import { AuditScreen } from "./screens/audit.js";
import { ChainsScreen } from "./screens/chains.js";
import { ChannelScreen } from "./screens/channel.js";
import { ChannelsScreen } from "./screens/channels.js";
import { ConnectScreen } from "./screens/connect.js";
import { ConversationScreen } from "./screens/conversation.js";
import { MembersScreen } from "./screens/members.js";
import { UsageScreen } from "./screens/usage.js";

export interface Screen {
	/** The path within the tenant; `:name` stands for a variable part. */
	path: string;
	title: string;
	/** The roles that see the screen. The server decides again. */
	roles: readonly Role[];
	/** Whether the menu lists it, and where: the screens of a group stand together. */
	menu: "work" | "organisation" | null;
	component: FunctionComponent<ScreenProps>;
}

export const EVERYBODY: readonly Role[] = ["owner", "admin", "member", "viewer"];
export const WRITERS: readonly Role[] = ["owner", "admin", "member"];
export const ADMINS: readonly Role[] = ["owner", "admin"];

export const SCREENS: readonly Screen[] = [
	{ path: "agents", title: "Agents", roles: EVERYBODY, menu: "work", component: AgentsScreen },
	{ path: "connect", title: "Connect an agent", roles: WRITERS, menu: null, component: ConnectScreen },
	{ path: "agents/:agent", title: "Agent", roles: EVERYBODY, menu: null, component: AgentScreen },
	{ path: "channels", title: "Channels", roles: EVERYBODY, menu: "work", component: ChannelsScreen },
	{ path: "channels/:channel", title: "Channel", roles: EVERYBODY, menu: null, component: ChannelScreen },
	{ path: "conversations", title: "Conversations", roles: EVERYBODY, menu: "work", component: ChainsScreen },
	{ path: "conversations/:chain", title: "Conversation", roles: EVERYBODY, menu: null, component: ConversationScreen },
	{ path: "usage", title: "Usage", roles: EVERYBODY, menu: "organisation", component: UsageScreen },
	{ path: "audit", title: "Audit", roles: ADMINS, menu: "organisation", component: AuditScreen },
	{ path: "members", title: "Members", roles: ADMINS, menu: "organisation", component: MembersScreen },
];

/** The screen of a tenant's first page. */
export const FIRST = "agents";
