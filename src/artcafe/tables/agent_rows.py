"""Convert agents and their keys to items and back, and define the sort keys of key claims (decision record 6).

The stores decide when an item is read or written; `attributes` defines how unexpected attributes are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from artcafe.model import Agent, AgentId, AgentKey, AgentStatus, ChannelId, Cursor, Epoch, KeyStatus, TenantId
from artcafe.rules import times
from artcafe.rules.keys import key_id
from artcafe.tables.attributes import (
    entries_of,
    expiry,
    handle_attribute,
    handle_of,
    hash_attribute,
    known,
    number,
    text,
    texts,
    time,
    time_attribute,
)
from artcafe.tables.engine.values import Item, Value
from artcafe.tables.rows import removed_to_of

KEYS_VERSION: Final = "keys_version"
"""The version attribute of an agent's keys, incremented with each change of them."""

INBOX_EPOCH: Final = "inbox_epoch"
INBOX_SEQ: Final = "inbox_acked_seq"
"""The position of an agent in its inbox, as `epoch` and `acked_seq` of a subscription. Not in a map: one write sets both in a row
of any age."""
INBOX_REMOVED_TO: Final = "inbox_removed_to"
"""The newest removed message of an agent's inbox, as `removed_to` of a channel."""

CLAIM_PREFIX: Final = "~key#"
"""The sort key of a claim is this prefix and a key's fingerprint. A claim in the agents' table records the agent of a key."""
HANDLE_PREFIX: Final = f"{CLAIM_PREFIX}handle#"
"""The sort key of the claim of a handle is this prefix, the kind, '#' and the handle. It begins like that of a key's claim: a
server of an earlier version, which runs beside this one during an upgrade, skips both."""

LIVENESS: Final = ("", "online", "offline", "busy", "error")
"""Values of `status` in the older system: an agent's liveness, not its permission to log in."""


def is_claim(item: Item) -> bool:
    """Return whether a row of the agents' table is the claim of a key or handle."""
    return text(item, "id").startswith(CLAIM_PREFIX)


def is_key_claim(item: Item) -> bool:
    """Return whether a row of the agents' table is the claim of a key."""
    return is_claim(item) and not text(item, "id").startswith(HANDLE_PREFIX)


def agent_of(item: Item) -> Agent | None:
    """Return the agent in an item; None for a claim, which is stored in the same table."""
    if is_claim(item):
        return None
    agent_id = text(item, "id")
    return Agent(
        tenant_id=TenantId(text(item, "tenant_id")),
        id=AgentId(agent_id),
        handle=handle_of(item),
        name=text(item, "name") or agent_id,
        description=text(item, "description"),
        public_key=text(item, "public_key"),
        capabilities=texts(item, "capabilities"),
        status=_agent_status(item.get("status")),
        created_at=time(item, "created_at"),
        updated_at=time(item, "updated_at"),
        epoch=number(item, "epoch"),
        key_serial=number(item, "key_serial"),
        key_added_at=time(item, "key_added_at"),
        keys=keys_of(item),
        keys_version=number(item, KEYS_VERSION),
        channels=frozenset(ChannelId(channel_id) for channel_id in entries_of(item, "channels")),
        inbox=inbox_position(item),
        inbox_removed_to=removed_to_of(item, INBOX_REMOVED_TO) if INBOX_REMOVED_TO in item else None,
        request_hash=text(item, "request_hash") or None,
    )


def inbox_position(item: Item) -> Cursor | None:
    """Return the position of an agent in its inbox; None if the row has none."""
    epoch = text(item, INBOX_EPOCH)
    return Cursor(epoch=Epoch(epoch), seq=number(item, INBOX_SEQ)) if epoch else None


def keys_of(item: Item) -> tuple[AgentKey, ...]:
    """Return an agent's additional keys, ordered by serial. A key with an unknown status is disabled."""
    keys = [
        AgentKey(
            line=text(entry, "public_key"),
            added_at=time(entry, "added_at"),
            status=known(KeyStatus, text(entry, "status"), KeyStatus.DISABLED),
            serial=number(entry, "serial"),
            not_after=expiry(entry, "not_after") if "not_after" in entry else None,
            request=text(entry, "request") or None,
            request_hash=text(entry, "request_hash") or None,
        )
        for entry in entries_of(item, "keys").values()
        if isinstance(entry, Mapping)
    ]
    return tuple(sorted(keys, key=lambda key: key.serial))


def _agent_status(value: Value) -> AgentStatus:
    """Return an agent's status. Any value except `active` and the older system's liveness values means disabled."""
    is_active = value is None or value == AgentStatus.ACTIVE or value in LIVENESS
    return AgentStatus.ACTIVE if is_active else AgentStatus.DISABLED


def agent_item(agent: Agent) -> Item:
    """Return the item of a new agent."""
    return {
        "tenant_id": agent.tenant_id,
        "id": agent.id,
        **handle_attribute(agent.handle),
        "name": agent.name,
        "description": agent.description,
        "public_key": agent.public_key,
        "capabilities": agent.capabilities,
        "status": agent.status.value,
        **time_attribute("created_at", agent.created_at),
        **time_attribute("updated_at", agent.updated_at),
        "epoch": agent.epoch,
        "channels": dict.fromkeys(agent.channels, True),
        **({} if agent.inbox is None else {INBOX_EPOCH: agent.inbox.epoch, INBOX_SEQ: agent.inbox.seq}),
        **hash_attribute(agent.request_hash),
    }


def keys_value(keys: Iterable[AgentKey]) -> Value:
    """Return the value of an agent's `keys`: a map by key id."""
    return {key_id(key.line): _key_entry(key) for key in keys}


def _key_entry(key: AgentKey) -> Value:
    entry: dict[str, Value] = {
        "public_key": key.line,
        **time_attribute("added_at", key.added_at),
        "status": key.status.value,
        "serial": key.serial,
    }
    if key.not_after is not None:
        entry["not_after"] = times.to_text(key.not_after)
    if key.request is not None:
        entry["request"] = key.request
    return {**entry, **hash_attribute(key.request_hash)}
