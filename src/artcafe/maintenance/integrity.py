"""What an older system left askew in a tenant's rows, and the writes that fix it. Pure: rows go in, findings come out.

Reading them and mending is `repair`'s. A fix never gives anybody a right that ArtCafe did not grant already, and never removes a
thing: an agent, a channel or a subscription that can be followed by its attributes (decision 17).
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
from artcafe.tables.tenant_store import Count


class Defect(StrEnum):
    """What can be wrong."""

    MEMBERSHIP = "membership"
    SUBSCRIPTION_ID = "subscription_id"
    CHANNEL_MAP = "channel_map"
    COUNT = "count"
    KEY_CLAIM = "key_claim"
    ADDRESS = "address"
    DELETION = "deletion"
    KEY = "key"
    LIMIT = "limit"
    ORPHAN = "orphan"
    PERMISSIONS = "permissions"
    PLAN = "plan"
    ROLE = "role"
    STATUS = "status"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it should be: which row, what about it, and whether it is mended by itself."""

    what: Defect
    tenant_id: str
    table: str
    key: str
    message: str = msgspec.field(name="says")
    is_fixable: bool = msgspec.field(name="is_mended")


@dataclass(frozen=True, slots=True)
class Fix:
    """A finding with the writes that fix it; none where a person has to."""

    finding: Finding
    writes: tuple[Write, ...] = ()


@dataclass(frozen=True, slots=True)
class TenantRows:
    """Every row of one tenant. `agents` has the claims too, and `members` the invitations, as the tables have."""

    tenant: Item
    agents: Sequence[Item]
    channels: Sequence[Item]
    subscriptions: Sequence[Item]
    members: Sequence[Item]


def examine(had: TenantRows) -> list[Fix]:
    """Everything that is askew in a tenant's own rows. No two fixes write the same row, and none the tenant's."""
    tenant_id = str(had.tenant["id"])
    if rows.is_deleting(had.tenant):
        message = "its deletion was begun and not ended; its owner deletes it again to end it"
        return [Fix(_finding(Defect.DELETION, tenant_id, TENANTS.name, tenant_id, message))]
    agents = [agent for item in had.agents if (agent := agent_rows.agent_of(item)) is not None]
    return [
        *_subscription_ids(tenant_id, had),
        *_channel_maps(tenant_id, had),
        *_claims(tenant_id, agents, [item for item in had.agents if agent_rows.agent_of(item) is None]),
    ]


def count_defects(had: TenantRows) -> list[tuple[Finding, Change]]:
    """The counts in a tenant's row that are not what is there, each with its right number."""
    if rows.is_deleting(had.tenant):
        return []
    tenant_id = str(had.tenant["id"])
    agents = sum(agent_rows.agent_of(item) is not None for item in had.agents)
    members = sum(people_rows.member_of(item) is not None for item in had.members)
    counted = {Count.AGENTS: agents, Count.CHANNELS: len(had.channels), Count.MEMBERS: members}
    found: list[tuple[Finding, Change]] = []
    for name, number in ((count.value, counted[count]) for count in Count):
        told = had.tenant.get(name)
        if not attributes.is_number(told) or told != number:
            message = f"{name} is {'missing' if told is None else repr(told)}, and there are {number}"
            found.append((_finding(Defect.COUNT, tenant_id, TENANTS.name, tenant_id, message, mended=True), Assign(name, number)))
    return found


def _finding(what: Defect, tenant_id: str, table: str, key: str, message: str, *, mended: bool = False) -> Finding:
    return Finding(what=what, tenant_id=tenant_id, table=table, key=key, message=message, is_fixable=mended)


# --- subscriptions -------------------------------------------------------------------------------------------------------


def _subscription_ids(tenant_id: str, had: TenantRows) -> Iterator[Fix]:
    """A subscription whose id is not the channel's and the agent's is copied to where it belongs, unless it stands there too."""
    places = {str(item["id"]): _pair(item) for item in had.subscriptions}
    for item in had.subscriptions:
        id, pair = str(item["id"]), _pair(item)
        right = "" if pair is None else subscription_id(*pair)
        if right == id:
            continue
        writes: tuple[Write, ...] = ()
        gone = Delete(CHANNEL_SUBSCRIPTIONS, ItemKey(tenant_id, id), Exists("id"))
        if pair is None:
            message = "it names no channel or no agent, so it stands for nothing"
        elif right not in places:
            places[right] = pair
            writes = (Put(CHANNEL_SUBSCRIPTIONS, {**item, "id": right}, Absent("id")), gone)
            message = f"its id must be {right}"
        elif places[right] == pair:
            writes = (gone,)
            message = f"there is {right} for the same channel and agent, which stays"
        else:
            message = f"its id must be {right}, where another channel's or agent's stands"
        finding = _finding(Defect.SUBSCRIPTION_ID, tenant_id, CHANNEL_SUBSCRIPTIONS.name, id, message, mended=bool(writes))
        yield Fix(finding, writes)


def _pair(item: Item) -> tuple[ChannelId, AgentId] | None:
    subscription = rows.subscription_of(item)
    if not subscription.channel_id or not subscription.agent_id:
        return None
    return subscription.channel_id, subscription.agent_id


def _channel_maps(tenant_id: str, had: TenantRows) -> Iterator[Fix]:
    """An agent's map names the channels of its subscriptions, as far as they are there, and no others."""
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
            continue  # One without a map, as an older system has it, is given one with its first subscription.
        value: Value = dict.fromkeys(sorted(right), True)
        as_read = Equals("channels", found) if isinstance(found, Mapping) else Not(OfKind("channels", ValueKind.MAP))
        update = Update(AGENTS, ItemKey(tenant_id, agent.id), [Assign("channels", value)], And(Exists("id"), as_read))
        message = _difference(right, found)
        yield Fix(_finding(Defect.CHANNEL_MAP, tenant_id, AGENTS.name, agent.id, message, mended=True), (update,))


def _difference(right: set[str], found: Value) -> str:
    if not isinstance(found, Mapping):
        return f"it has no map of its channels, and {len(right)} subscriptions"
    missing, extra = sorted(right - found.keys()), sorted(found.keys() - right)
    told = [f"lacks {', '.join(missing)}"] if missing else []
    told += [f"names {', '.join(extra)} without a subscription"] if extra else []
    return f"its map of channels {' and '.join(told)}"


# --- keys ----------------------------------------------------------------------------------------------------------------


def _claims(tenant_id: str, agents: Sequence[Agent], claims: Sequence[Item]) -> Iterator[Fix]:
    """A key is claimed by an agent that has it (decision record 6); a claim whose agent has not is another's, or goes."""
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
                f"agents {', '.join(owners)} have one key, so that nobody knows which of them signs; give all but one another"
            )
            yield Fix(_finding(Defect.KEY_CLAIM, tenant_id, AGENTS.name, agent_rows.CLAIM_PREFIX + fingerprint, message))
        if owner not in owners:
            yield _mended_claim(tenant_id, fingerprint, owners, item)


def _mended_claim(tenant_id: str, fingerprint: str, owners: Sequence[AgentId], item: Item | None) -> Fix:
    key = ItemKey(tenant_id, agent_rows.CLAIM_PREFIX + fingerprint)
    as_read = Absent("id") if item is None else Equals("agent_id", item["agent_id"]) if "agent_id" in item else Absent("agent_id")
    if owners:
        claim = {"tenant_id": tenant_id, "id": key.sort, "agent_id": owners[0]}
        write: Write = Put(AGENTS, claim, as_read)
        claimed = "claimed by nobody" if item is None else "claimed by one that has not got it"
        message = f"the key of agent {owners[0]} is {claimed}"
    else:
        write = Delete(AGENTS, key, as_read)
        message = "no agent has the key that is claimed here"
    return Fix(_finding(Defect.KEY_CLAIM, tenant_id, AGENTS.name, str(key.sort), message, mended=True), (write,))


def _fingerprints(agent: Agent) -> list[str]:
    """Of the agent's keys, active or not, but for those of an older system that are not admitted today."""
    found = (keys.admitted(key.line) for key in keys.all_of(agent))
    return [key.fingerprint for key in found if key is not None]
