from __future__ import annotations

import pytest

from artcafe.plan_catalogue import shipped
from artcafe.rules.plan_check import AGENT_SUBSCRIPTIONS, Capacity, oversold
from artcafe.rules.plans import UNLIMITED, Limit, Plan, Plans

ROOM = Capacity(connections=1000, storage_bytes=10**12)


def plans(**own: int) -> Plans:
    numbers = dict.fromkeys(Limit, 10) | {Limit(name): number for name, number in own.items()}
    return Plans.of(Plan("gold", "Gold", "", self_serve=True, limits=numbers))


@pytest.mark.parametrize(
    ("name", "most", "others"),
    [
        ("message_bytes", 65_536, {}),
        ("agent_subscriptions", AGENT_SUBSCRIPTIONS, {}),
        ("connections", 1000, {}),
        ("storage_bytes", 10**12, {}),
        ("agent_connections", 700, {"connections": 700}),
        ("hops", 30, {"chain_messages": 30}),
    ],
)
def test_plan_above_what_the_installation_keeps_is_named(name: str, most: int, others: dict[str, int]) -> None:
    assert oversold(plans(**others, **{name: most}), ROOM) == []
    (fault,) = oversold(plans(**others, **{name: most + 1}), ROOM)
    assert fault.startswith(f"plans.gold.limits.{name} is {most + 1}, but {most} is ")


def test_unlimited_promises_no_number() -> None:
    unlimited = Plans.of(Plan("gold", "Gold", "", self_serve=True, limits=dict.fromkeys(Limit, UNLIMITED)))
    assert oversold(unlimited, ROOM) == []


def test_sockets_and_disks_of_a_fleet_are_unknown() -> None:
    assert oversold(plans(connections=10**9, storage_bytes=10**15), Capacity()) == []


def test_shipped_plans_fit_a_machine_of_16_384_descriptors_and_a_terabyte() -> None:
    assert oversold(shipped(), Capacity(connections=14_336, storage_bytes=10**12)) == []
