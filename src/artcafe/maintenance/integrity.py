"""Defects left by an older system in a tenant's rows, and the writes to fix them. Pure: rows in, findings out.

`repair` reads the rows and commits the fixes. A fix never grants a new right, and never removes an identifiable agent, channel or
subscription (decision record 17).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from artcafe.model import Agent, AgentId, ChannelId, subscription_id
from artcafe.rules import keys
from artcafe.tables import agent_rows, attributes, people_rows, rows
from artcafe.tables.catalog import AGENTS, CHANNEL_SUBSCRIPTIONS, TENANTS
from artcafe.tables.engine.conditions import Absent, And, Equals, Exists, Not, OfKind
from artcafe.tables.engine.values import Item, Value, ValueKind
from artcafe.tables.engine.writes import Assign, Change, Delete, ItemKey, Put, Update, Write
from artcafe.tables.tenant_store import RecordCount


class Defect(StrEnum):
    """Kinds of defects."""

    MEMBERSHIP = "membership"
    SUBSCRIPTION_ID = "subscription_id"
    CHANNEL_MAP = "channel_map"
    COUNT = "count"
    KEY_CLAIM = "key_claim"
    ADDRESS = "address"
    DELETION = "deletion"
    HANDLE = "handle"
    KEY = "key"
    LIMIT = "limit"
    ORPHAN = "orphan"
    PERMISSIONS = "permissions"
    PLAN = "plan"
    ROLE = "role"
    STATUS = "status"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A defect of a row, and whether a repair fixes it. In JSON the fields have the names of the command's output."""

    what: Defect
    tenant_id: str
    table: str
    key: str
    message: str = msgspec.field(name="says")
    is_fixable: bool = msgspec.field(name="is_mended")


@dataclass(frozen=True, slots=True)
class Fix:
    """A finding with the writes to fix it; no writes if a person has to decide."""

    finding: Finding
    writes: tuple[Write, ...] = ()


@dataclass(frozen=True, slots=True)
class TenantRows:
    """All rows of one tenant. As in the tables, `agents` includes the claims of keys and handles, and `members` includes
    invitations."""

    tenant: Item
    agents: Sequence[Item]
    channels: Sequence[Item]
    subscriptions: Sequence[Item]
    members: Sequence[Item]


def examine(had: TenantRows) -> list[Fix]:
    """Return the defects in a tenant's rows. No two fixes write the same row, and none writes the tenant's row."""
    tenant_id = str(had.tenant["id"])
    if rows.is_deleting(had.tenant):
        message = "its deletion was interrupted; its owner deletes it again to complete it"
        return [Fix(_finding(Defect.DELETION, tenant_id, TENANTS.name, tenant_id, message))]
    agents = [agent for item in had.agents if (agent := agent_rows.agent_of(item)) is not None]
    return [
        *_subscription_ids(tenant_id, had),
        *_channel_maps(tenant_id, had),
        *_claims(tenant_id, agents, [item for item in had.agents if agent_rows.is_key_claim(item)]),
    ]


def count_defects(had: TenantRows) -> list[tuple[Finding, Change]]:
    """Return the wrong counts in a tenant's row, each with the change to the right number."""
    if rows.is_deleting(had.tenant):
        return []
    tenant_id = str(had.tenant["id"])
    agents = sum(agent_rows.agent_of(item) is not None for item in had.agents)
    members = sum(people_rows.member_of(item) is not None for item in had.members)
    counted = {RecordCount.AGENTS: agents, RecordCount.CHANNELS: len(had.channels), RecordCount.MEMBERS: members}
    found: list[tuple[Finding, Change]] = []
    for name, number in ((count.value, counted[count]) for count in RecordCount):
        stored = had.tenant.get(name)
        if not attributes.is_number(stored) or stored != number:
            message = f"{name} is {'missing' if stored is None else repr(stored)}, but there are {number}"
            found.append(
                (_finding(Defect.COUNT, tenant_id, TENANTS.name, tenant_id, message, fixable=True), Assign(name, number))
            )
    return found


def _finding(what: Defect, tenant_id: str, table: str, key: str, message: str, *, fixable: bool = False) -> Finding:
    return Finding(what=what, tenant_id=tenant_id, table=table, key=key, message=message, is_fixable=fixable)


# --- subscriptions -------------------------------------------------------------------------------------------------------


def _subscription_ids(tenant_id: str, had: TenantRows) -> Iterator[Fix]:
    """Move each subscription with a wrong id, unless the right id exists too."""
    places = {str(item["id"]): _pair(item) for item in had.subscriptions}
    for item in had.subscriptions:
        id, pair = str(item["id"]), _pair(item)
        right = "" if pair is None else subscription_id(*pair)
        if right == id:
            continue
        writes: tuple[Write, ...] = ()
        gone = Delete(CHANNEL_SUBSCRIPTIONS, ItemKey(tenant_id, id), Exists("id"))
        if pair is None:
            message = "it names no channel or no agent, so it has no effect"
        elif right not in places:
            places[right] = pair
            writes = (Put(CHANNEL_SUBSCRIPTIONS, {**item, "id": right}, Absent("id")), gone)
            message = f"its id must be {right}"
        elif places[right] == pair:
            writes = (gone,)
            message = f"there is {right} for the same channel and agent, which is kept"
        else:
            message = f"its id must be {right}, which is another channel's or agent's subscription"
        finding = _finding(Defect.SUBSCRIPTION_ID, tenant_id, CHANNEL_SUBSCRIPTIONS.name, id, message, fixable=bool(writes))
        yield Fix(finding, writes)


def _pair(item: Item) -> tuple[ChannelId, AgentId] | None:
    subscription = rows.subscription_of(item)
    if not subscription.channel_id or not subscription.agent_id:
        return None
    return subscription.channel_id, subscription.agent_id


def _channel_maps(tenant_id: str, had: TenantRows) -> Iterator[Fix]:
    """Set each agent's channel map to the existing channels of its subscriptions."""
    there = {str(item["id"]) for item in had.channels}
    subscribed: defaultdict[str, set[str]] = defaultdict(set)
    for item in had.subscriptions:
        pair = _pair(item)
        if pair is not None and pair[0] in there:
            subscribed[pair[1]].add(pair[0])
    for item in had.agents:
        agent = agent_rows.agent_of(item)
        if agent is None or rows.is_deleting(item):
            continue
        right, found = subscribed[agent.id], item.get("channels")
        if isinstance(found, Mapping) and found.keys() == right:
            continue
        if not right and found is None:
            continue  # An agent of an older system has no map, and gets one with its first subscription.
        value: Value = dict.fromkeys(sorted(right), True)
        as_read = Equals("channels", found) if isinstance(found, Mapping) else Not(OfKind("channels", ValueKind.MAP))
        update = Update(AGENTS, ItemKey(tenant_id, agent.id), [Assign("channels", value)], And(Exists("id"), as_read))
        message = _difference(right, found)
        yield Fix(_finding(Defect.CHANNEL_MAP, tenant_id, AGENTS.name, agent.id, message, fixable=True), (update,))


def _difference(right: set[str], found: Value) -> str:
    if not isinstance(found, Mapping):
        return f"it has no map of its channels, and {len(right)} subscriptions"
    missing, extra = sorted(right - found.keys()), sorted(found.keys() - right)
    parts = [f"lacks {', '.join(missing)}"] if missing else []
    parts += [f"names {', '.join(extra)} without a subscription"] if extra else []
    return f"its map of channels {' and '.join(parts)}"


# --- keys ----------------------------------------------------------------------------------------------------------------


def _claims(tenant_id: str, agents: Sequence[Agent], claims: Sequence[Item]) -> Iterator[Fix]:
    """Give each key's claim to an agent that has the key (decision record 6), and delete claims of unused keys."""
    holders: defaultdict[str, list[AgentId]] = defaultdict(list)
    for agent in sorted(agents, key=lambda each: each.id):
        for fingerprint in _fingerprints(agent):
            holders[fingerprint].append(agent.id)
    claimed = {str(item["id"]).removeprefix(agent_rows.CLAIM_PREFIX): item for item in claims}
    for fingerprint in sorted(holders.keys() | claimed.keys()):
        item, owners = claimed.get(fingerprint), holders.get(fingerprint, [])
        owner = None if item is None else item.get("agent_id")
        if len(owners) > 1:
            message = (
                f"agents {', '.join(owners)} have the same key, so a signature does not identify the agent;"
                " give all but one of them another key"
            )
            yield Fix(_finding(Defect.KEY_CLAIM, tenant_id, AGENTS.name, agent_rows.CLAIM_PREFIX + fingerprint, message))
        if owner not in owners:
            yield _fixed_claim(tenant_id, fingerprint, owners, item)


def _fixed_claim(tenant_id: str, fingerprint: str, owners: Sequence[AgentId], item: Item | None) -> Fix:
    key = ItemKey(tenant_id, agent_rows.CLAIM_PREFIX + fingerprint)
    as_read = Absent("id") if item is None else Equals("agent_id", item["agent_id"]) if "agent_id" in item else Absent("agent_id")
    if owners:
        claim = {"tenant_id": tenant_id, "id": key.sort, "agent_id": owners[0]}
        write: Write = Put(AGENTS, claim, as_read)
        claimed = "not claimed" if item is None else "claimed by an agent that does not have it"
        message = f"the key of agent {owners[0]} is {claimed}"
    else:
        write = Delete(AGENTS, key, as_read)
        message = "no agent has the claimed key"
    return Fix(_finding(Defect.KEY_CLAIM, tenant_id, AGENTS.name, str(key.sort), message, fixable=True), (write,))


def _fingerprints(agent: Agent) -> list[str]:
    """Return the fingerprints of the agent's keys, active or not, except older keys that are not accepted today."""
    found = (keys.admitted(key.line) for key in keys.all_of(agent))
    return [key.fingerprint for key in found if key is not None]
