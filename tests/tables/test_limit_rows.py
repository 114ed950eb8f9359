from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.rules.plans import Limit
from artcafe.tables import limit_rows, rows
from artcafe.tables.catalog import TENANTS
from artcafe.tables.engine.evaluation import outcome
from artcafe.tables.engine.values import Value
from artcafe.tables.engine.writes import ItemKey, Update
from tests.tables.strategies import values

FLAGS = {"custom_domains_enabled": 1, "priority_support": 0}


@pytest.mark.parametrize(
    ("row", "plan"),
    [
        ({}, "free"),
        ({"plan": "team", "subscription_plan": "pro"}, "team"),
        ({"subscription_plan": "pro", "subscription_tier": "basic"}, "pro"),
        ({"plan": None, "subscription_plan": "", "subscription_tier": "basic"}, "basic"),
        ({"plan": 3}, "free"),
    ],
)
def test_newest_format_of_the_plan_wins(row: Mapping[str, Value], plan: str) -> None:
    assert rows.tenant_of({**row, "id": "t"}).plan == plan


@pytest.mark.parametrize(
    ("row", "kept", "unkept"),
    [
        ({}, {}, []),
        ({"limits": {"agents": 5, "retention_s": 60}}, {"agents": 5, "retention_s": 60}, []),
        (
            {"limits": {"max_agents": 3, "max_channels": 10, "max_concurrent_connections": 5, "max_storage_gb": 1, **FLAGS}},
            {"agents": 3, "channels": 10, "connections": 5, "storage_bytes": 2**30},
            ["custom_domains_enabled", "priority_support"],
        ),
        (
            {"max_agents": 3, "max_storage_gb": Decimal("0.5"), "max_messages_per_day": 100},
            {"agents": 3, "storage_bytes": 2**29},
            ["max_messages_per_day"],
        ),
        ({"max_agents": 3, "limits": {"max_agents": 4}}, {"agents": 4}, []),
        ({"limits": {"max_agents": 4, "agents": 7}}, {"agents": 7}, []),
        ({"limits": {"max_agents": "10", "agents": True, "channels": -1}}, {}, ["agents", "max_agents", "channels"]),
        ({"limits": {"agents": Decimal("1.5"), "max_storage_gb": 10**30}}, {}, ["agents", "max_storage_gb"]),
        ({"limits": {"max_agents": 999_999}}, {"agents": 999_999}, []),
        ({"limits": "many"}, {}, []),
    ],
)
def test_limits_are_read_in_every_format_and_unenforced_ones_are_named(
    row: Mapping[str, Value], kept: Mapping[str, int], unkept: list[str]
) -> None:
    assert limit_rows.limits_of(row) == kept
    assert limit_rows.unenforced_of(row) == unkept


@given(st.dictionaries(st.sampled_from([*Limit, "max_agents", "max_storage_gb", "max_ssh_keys"]), values()), values())
def test_only_known_limits_are_read_from_any_row(own: dict[str, Value], flat: Value) -> None:
    row: dict[str, Value] = {"limits": own, "max_agents": flat}
    for name, number in limit_rows.limits_of(row).items():
        assert name in list(Limit)
        assert type(number) is int
        assert number >= 0
    assert set(limit_rows.unenforced_of(row)) <= own.keys() | {"max_agents"}


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"limits": "many", "max_agents": 3},
        {"limits": {}},
        {"limits": {"max_agents": 3, **FLAGS}, "max_agents": 4},
        {"limits": {"agents": 7, "channels": 1}, "max_storage_gb": 2},
    ],
)
def test_own_limits_are_set_and_removed_in_every_format(row: dict[str, Value]) -> None:
    others = {name: number for name, number in limit_rows.limits_of(row).items() if name != "agents"}
    changed = applied(row, {Limit.AGENTS: 9, Limit.HOPS: 2})
    assert limit_rows.limits_of(changed) == {**others, "agents": 9, "hops": 2}
    removed = applied(changed, {Limit.AGENTS: None, Limit.HOPS: None})
    assert limit_rows.limits_of(removed) == others
    assert set(FLAGS) & _entries(row) == set(FLAGS) & _entries(removed), "what has no meaning here stays"


def _entries(row: dict[str, Value]) -> set[str]:
    own = row.get("limits")
    return set(own) if isinstance(own, dict) else set()


def applied(row: dict[str, Value], numbers: Mapping[Limit, int | None]) -> dict[str, Value]:
    """Return the row after the changes, as the engine makes it."""
    update = Update(TENANTS, ItemKey("t"), limit_rows.changes_of(row, numbers))
    changed = outcome(update, {"id": "t", **row})
    assert changed is not None
    return {name: value for name, value in changed.items() if name != "id"}
