"""Choose the handle of an agent or channel, and claim and release it in the transaction of its row."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from artcafe.errors import HandleTaken
from artcafe.model import Agent, Channel, HandleKind
from artcafe.rules import handles
from artcafe.tables.engine.writes import Put, Write
from artcafe.tables.tenant_store import TenantStore

TRIES: Final = 8
"""Attempts at a transaction with a default handle. Each failure of its claim means that another creation took the handle."""
_AT_ONCE: Final = 16
"""Handles read at once in the search of a free one."""
_MOST: Final = 2**20
"""A number above the one of every default handle."""


RecordT = TypeVar("RecordT", Agent, Channel)


def kind_of(record: Agent | Channel) -> HandleKind:
    """Return the kind of an agent's or channel's handle."""
    return HandleKind.AGENT if isinstance(record, Agent) else HandleKind.CHANNEL


async def choose(tenant: TenantStore, record: RecordT, attempt: int = 0) -> tuple[RecordT, Put]:
    """Return the record with a handle, the given one or a default made from its name, and the write to claim it.

    The write fails if another one claims the handle first. `attempt` counts these failures from 0. Raises HandleTaken if the
    record's own handle is taken.
    """
    if record.handle is not None:
        return record, await claim(tenant, record, record.handle)
    handle = await _default(tenant, record, attempt)
    put = tenant.handles.claim(kind_of(record), handle, record.id)
    return msgspec.structs.replace(record, handle=handle), put


async def claim(tenant: TenantStore, record: Agent | Channel, handle: str) -> Put:
    """Return the write to claim the handle for the record. It fails if another one claims it first. Raises HandleTaken."""
    kind = kind_of(record)
    claimed_by = await tenant.handles.owner(kind, handle)
    if claimed_by not in (None, record.id):
        row = await (tenant.agent if kind is HandleKind.AGENT else tenant.channel)(claimed_by, also_deleting=True)
        if row is not None and row.handle == handle:
            raise HandleTaken(kind.value, handle)
    elif claimed_by is None and await tenant.handles.taken(kind, [handle], unless=record.id):
        raise HandleTaken(kind.value, handle)
    return tenant.handles.claim(kind, handle, record.id, instead_of=claimed_by)


async def exchange(tenant: TenantStore, record: Agent | Channel, handle: str) -> list[Write]:
    """Return the writes to claim another handle for the record, and release its present one. Raises HandleTaken."""
    return [await claim(tenant, record, handle), *await release(tenant, record)]


async def _default(tenant: TenantStore, record: Agent | Channel, attempt: int) -> str:
    """Return a free handle made from the record's name, with a number where it is taken.

    Later attempts skip some numbers, so that creations at the same time choose different ones, and the last one takes a part of
    the id.
    """
    kind = kind_of(record)
    base = handles.from_name(record.name, kind.value)
    if attempt >= TRIES - 1:
        return handles.for_id(base, record.id)
    number = await _first_free(tenant, kind, base, record.id)
    if attempt:
        number += random.randrange(4**attempt)  # noqa: S311 (only spreads concurrent creations)
    return handles.numbered(base, number)


async def _first_free(tenant: TenantStore, kind: HandleKind, base: str, owner: str) -> int:
    """Return the first number with which the handle is free; above `_AT_ONCE`, a free one whose predecessor is taken."""
    low, high = 0, _MOST
    numbers: Sequence[int] = (1,)  # alone: it is usually free, and every read of an absent row costs a unit
    while high - low > 1:
        named = {number: handles.numbered(base, number) for number in numbers}
        taken = await tenant.handles.taken(kind, named.values(), unless=owner)
        for number, name in named.items():
            if name not in taken:
                high = number
                break
            low = number
        if high == _MOST and low == 1:
            numbers = range(2, _AT_ONCE + 1)
        elif high == _MOST and low == _AT_ONCE:
            numbers = [low << shift for shift in range(1, _AT_ONCE)]
        else:
            numbers = sorted({low + (high - low) * part // (_AT_ONCE + 1) for part in range(1, _AT_ONCE + 1)} - {low})
    return high


async def release(tenant: TenantStore, record: Agent | Channel) -> list[Write]:
    """Return the writes to release the record's handle; none if it has none, or if another record has claimed it."""
    kind = kind_of(record)
    if record.handle is None or await tenant.handles.owner(kind, record.handle) not in (None, record.id):
        return []
    return [tenant.handles.release(kind, record.handle, record.id)]
