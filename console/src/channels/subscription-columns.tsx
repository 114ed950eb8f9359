/** Columns of subscriptions, for the lists of a channel and of an agent. */

import type { Subscription } from "../../../clients/typescript/src/generated/rest.js";
import { Badge, type Column, Count } from "../ui/index.js";

export const STATE: Column<Subscription> = { title: "State", cell: (each) => <Badge tone={each.status === "active" ? "good" : "warn"}>{each.status}</Badge> };
export const MAY: Column<Subscription> = { title: "May", minor: true, cell: (each) => each.permissions.map((permission) => <Badge key={permission}>{permission}</Badge>) };
/** The last acknowledged message. A queue and a live channel have no cursors. */
export const CURSOR: Column<Subscription> = { title: "Cursor", align: "end", cell: (each) => <Count of={each.lag == null && each.cursor.epoch === null ? null : each.cursor.seq} /> };
export const BEHIND: Column<Subscription> = { title: "Behind by", align: "end", cell: (each) => <Count of={each.lag} /> };
