"""Compare a catalogue of plans with what the servers can keep, so that no plan sells more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from artcafe.rules.fields import MESSAGE_BYTES
from artcafe.rules.plans import UNLIMITED, Limit, Plans

AGENT_SUBSCRIPTIONS: Final = 128
"""The most channels that one connection of an agent receives."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an installation can keep, by its settings. None is unknown: a fleet has as many servers as are started."""

    connections: int | None = None
    """The sockets of all server processes together."""
    storage_bytes: int | None = None
    """The size of the disk of the messages."""


def oversold(plans: Plans, capacity: Capacity) -> list[str]:
    """Return a clause for each number of a plan that the installation cannot keep.

    "unlimited" promises no number: the server's own limits apply then, and refuse with their own errors.
    """
    return [f"plans.{plan.name}.limits.{fault}" for plan in plans for fault in faults_of(plan.limits, capacity)]


def faults_of(limits: Mapping[Limit, int], capacity: Capacity) -> Iterator[str]:
    """Yield a clause for each of some limits that the installation cannot keep."""
    tops: tuple[tuple[Limit, int | None, str], ...] = (
        (Limit.MESSAGE_BYTES, MESSAGE_BYTES, "the largest data that the gateway and REST accept"),
        (Limit.AGENT_SUBSCRIPTIONS, AGENT_SUBSCRIPTIONS, "the most channels that a connection receives"),
        (
            Limit.CONNECTIONS,
            capacity.connections,
            "the sockets that PROCESSES and the limit of open files (ulimit -n) allow on this machine",
        ),
        (Limit.STORAGE_BYTES, capacity.storage_bytes, "the size of the disk under DATA_DIR"),
        (Limit.AGENT_CONNECTIONS, limits.get(Limit.CONNECTIONS), "the plan's own connections"),
        (Limit.HOPS, limits.get(Limit.CHAIN_MESSAGES), "the plan's own chain_messages"),
    )
    for limit, most, what in tops:
        number = limits.get(limit, 0)
        if most is not None and most < number < UNLIMITED:
            yield f"{limit} is {number}, but {most} is {what}"
