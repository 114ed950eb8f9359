"""Read the plan and the limits in a tenant's row, in ArtCafe's words or in those of the older system (decision record 27)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from artcafe.rules.plans import DEFAULT_PLAN, UNLIMITED, Limit
from artcafe.tables.attributes import entries_of, is_number, text
from artcafe.tables.engine.values import Item, Value
from artcafe.tables.engine.writes import Assign, Change, Remove

_PLAN_NAMES: Final = ("plan", "subscription_plan", "subscription_tier")

_OLDER_NAMES: Final = {
    Limit.AGENTS: "max_agents",
    Limit.CHANNELS: "max_channels",
    Limit.CONNECTIONS: "max_concurrent_connections",
    Limit.STORAGE_BYTES: "max_storage_gb",
    Limit.MESSAGES_A_MONTH: "max_messages_per_month",
}
"""The older system stored these in the map `limits`, and before that in the row itself."""


def plan_of(item: Item) -> str:
    """Return the name of the tenant's plan."""
    return next((plan for name in _PLAN_NAMES if (plan := text(item, name))), DEFAULT_PLAN)


def limits_of(item: Item) -> dict[str, int]:
    """Return the enforced limits in the tenant's row, by ArtCafe's names; the plan sets the others."""
    found = {limit.value: _limit_of(item, limit) for limit in Limit}
    return {name: number for name, number in found.items() if number is not None}


def unenforced_of(item: Item) -> list[str]:
    """Return the names of limits in the row that ArtCafe does not enforce, because the name or the value is unknown."""
    own = entries_of(item, "limits")
    of_row = {name: value for name, value in item.items() if name.startswith("max_")}
    known = {limit.value for limit in Limit} | set(_OLDER_NAMES.values())
    unknown = [name for name in sorted(own.keys() | of_row.keys()) if name not in known]
    return [*unknown, *[name for limit in Limit for name, value in _stated(item, limit) if _number(name, value) is None]]


def changes_of(item: Item, numbers: Mapping[Limit, int | None]) -> list[Change]:
    """Return the changes of a tenant's row for own limits; None removes one, in every format, so that the plan's applies."""
    own = item.get("limits")
    kept = {limit.value: number for limit, number in numbers.items() if number is not None}
    removed = [limit for limit, number in numbers.items() if number is None]
    older = [name for limit in removed if (name := _OLDER_NAMES.get(limit)) is not None]
    changes: list[Change] = [Remove(name) for name in older if name in item]
    if not isinstance(own, Mapping):
        return [*changes, Assign("limits", kept)]
    changes += [Assign(("limits", name), number) for name, number in kept.items()]
    return [*changes, *[Remove(("limits", name)) for name in (*[limit.value for limit in removed], *older) if name in own]]


def _limit_of(item: Item, limit: Limit) -> int | None:
    numbers = (_number(name, value) for name, value in _stated(item, limit))
    return next((number for number in numbers if number is not None), None)


def _stated(item: Item, limit: Limit) -> Iterator[tuple[str, Value]]:
    """Yield the values in the row for a limit, the most recent format first."""
    own, older = entries_of(item, "limits"), _OLDER_NAMES.get(limit)
    if limit.value in own:
        yield limit.value, own[limit.value]
    if older is not None and older in own:
        yield older, own[older]
    if older is not None and older in item:
        yield older, item[older]


def _number(name: str, value: Value) -> int | None:
    """Return a limit as an integer, gigabytes converted to bytes; None for an invalid value, such as -1 or a text."""
    if not is_number(value) or not isinstance(value, int | Decimal):
        return None
    number = int(value * 2**30) if name == _OLDER_NAMES[Limit.STORAGE_BYTES] else value
    return number if isinstance(number, int) and 0 <= number <= UNLIMITED else None
