"""The wake policy and its state in an agent's row, and the mark in its tenant's row that some agent has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from artcafe.model import Agent, AgentId, Cursor, Epoch, TenantId
from artcafe.rules import ids
from artcafe.rules.wake import DEFAULT_INTERVAL_S, WakePolicy, WakeState
from artcafe.tables import agent_rows, rows
from artcafe.tables.attributes import entries_of, number, text, texts, time, time_attribute
from artcafe.tables.catalog import AGENTS
from artcafe.tables.engine.conditions import And, Condition, Equals, Not, OfKind, Or
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.values import Item, Value, ValueKind
from artcafe.tables.engine.writes import Assign, Change, ItemKey, Remove, Update
from artcafe.tables.partition import Partition

POLICY: Final = "wake"
STATE: Final = "wake_state"
SERIAL: Final = "wake_serial"
TENANT_MARK: Final = "wakes"
"""True in a tenant's row once an agent of it has had a policy: the others' agents need not be read."""


class WakeRow(NamedTuple):
    """An agent with its policy and state."""

    agent: Agent
    policy: WakePolicy | None
    state: WakeState


def wake_row_of(item: Item) -> WakeRow | None:
    """Return the wake policy in an agent's item; None for a claim, and for an agent being deleted."""
    agent = None if rows.is_deleting(item) else agent_rows.agent_of(item)
    return None if agent is None else WakeRow(agent, _policy_of(item), _state_of(item))


def marks_tenant(item: Item | None) -> bool:
    """Return whether a tenant's row says that agents may have policies."""
    return item is not None and item.get(TENANT_MARK) is True


def _policy_of(item: Item) -> WakePolicy | None:
    entry = entries_of(item, POLICY)
    salts = texts(entry, "salts")
    if not text(entry, "url") or not salts:
        return None
    return WakePolicy(
        url=text(entry, "url"),
        interval_s=number(entry, "interval_s") or DEFAULT_INTERVAL_S,
        quiet_hours=text(entry, "quiet_hours") or None,
        is_enabled=entry.get("enabled") is True,
        salts=salts,
        rotated_at=time(entry, "rotated_at"),
        problem=text(entry, "problem") or None,
    )


def policy_value(policy: WakePolicy) -> Value:
    """Return the value of an agent's `wake`."""
    return {
        "url": policy.url,
        "interval_s": policy.interval_s,
        "enabled": policy.is_enabled,
        "salts": list(policy.salts),
        **({} if policy.quiet_hours is None else {"quiet_hours": policy.quiet_hours}),
        **({} if policy.problem is None else {"problem": policy.problem}),
        **time_attribute("rotated_at", policy.rotated_at),
    }


def _state_of(item: Item) -> WakeState:
    entry = entries_of(item, STATE)
    epoch = text(entry, "notified_epoch")
    return WakeState(
        serial=number(item, SERIAL),
        notified=Cursor(epoch=Epoch(epoch), seq=number(entry, "notified_seq")) if epoch else Cursor(),
        sent_at=time(entry, "sent_at"),
        webhook_id=text(entry, "webhook_id") or None,
        up_to=number(entry, "up_to"),
        epoch=Epoch(text(entry, "epoch")),
        due_at=time(entry, "due_at"),
        failures=number(entry, "failures"),
        failure=text(entry, "failure") or None,
    )


def _state_value(state: WakeState) -> Value:
    optional = {"webhook_id": state.webhook_id, "failure": state.failure, "notified_epoch": state.notified.epoch}
    return {
        **{name: value for name, value in optional.items() if value is not None},
        "notified_seq": state.notified.seq,
        "up_to": state.up_to,
        "epoch": state.epoch,
        "failures": state.failures,
        **time_attribute("sent_at", state.sent_at),
        **time_attribute("due_at", state.due_at),
    }


class WakeStore:
    """The wake policies of one tenant; its key is in every read and write."""

    def __init__(self, tables: Tables, tenant_id: TenantId) -> None:
        self._tables, self._tenant_id = tables, tenant_id
        self._agents = Partition(tables, AGENTS, tenant_id, apart=agent_rows.CLAIM_PREFIX)

    async def get(self, agent_id: str) -> WakeRow | None:
        """Return an agent with its policy and state; None for an unknown, malformed or foreign id, or one being deleted."""
        if not ids.is_possible(agent_id):
            return None
        (item,) = await self._tables.get(AGENTS, [ItemKey(self._tenant_id, agent_id)], consistent=True)
        return None if item is None else wake_row_of(item)

    async def with_policies(self) -> list[WakeRow]:
        """Return every agent that has a policy. Reads all agents of the tenant."""
        found = [wake_row_of(item) async for item in self._agents.items() if POLICY in item]
        return [row for row in found if row is not None and row.policy is not None]

    def change(self, agent_id: AgentId, state: WakeState, policy: WakePolicy | None) -> Update:
        """Return the write of a policy, or without one its removal, and of a new state; fails if the state has another serial
        than the given one, which was read."""
        changes: list[Change] = [Remove(POLICY)] if policy is None else [Assign(POLICY, policy_value(policy))]
        return self._update(agent_id, state, changes)

    def change_state(self, agent_id: AgentId, state: WakeState) -> Update:
        """Return the write of a state alone; fails as `change` does."""
        return self._update(agent_id, state, [])

    def _update(self, agent_id: AgentId, state: WakeState, changes: Sequence[Change]) -> Update:
        written = [*changes, Assign(STATE, _state_value(state)), Assign(SERIAL, state.serial + 1)]
        return Update(AGENTS, ItemKey(self._tenant_id, agent_id), written, And(rows.IS_PRESENT, _has_serial(state.serial)))


def _has_serial(serial: int) -> Condition:
    equal = Equals(SERIAL, serial)
    return equal if serial else Or(Not(OfKind(SERIAL, ValueKind.NUMBER)), equal)
