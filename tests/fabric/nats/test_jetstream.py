from __future__ import annotations

from typing import Any

import pytest

from artcafe.fabric.nats.jetstream import has_quorum, is_from_leader

MOMENT, LONG = 500_000_000, 5_000_000_000


def info(leader: str | None, **active: int) -> dict[str, Any]:
    """Return a cluster member's stream info: the leader, and when it heard from each other replica (ns ago)."""
    copies = [{"name": name.replace("_", "-"), "current": True, "active": ns} for name, ns in active.items()]
    return {"cluster": {"name": "artcafe-prod", **({"leader": leader} if leader else {}), "replicas": copies}}


@pytest.mark.parametrize(
    ("given", "is_leaders"),
    [
        (info("nats-1", nats_2=MOMENT, nats_3=MOMENT), True),
        (info("nats-1", nats_1=MOMENT, nats_3=MOMENT), False),  # given by nats-2, while nats-1 leads
        (info(None, nats_1=MOMENT, nats_2=MOMENT, nats_3=MOMENT), False),  # no leader
        ({"cluster": {"leader": "nats-1"}}, True),  # the only replica in a cluster
        ({}, True),  # a single server
    ],
)
def test_only_the_leaders_stream_info_is_accepted(given: dict[str, Any], is_leaders: bool) -> None:
    assert is_from_leader(given) is is_leaders


@pytest.mark.parametrize(
    ("given", "agreed"),
    [
        (info("nats-1", nats_2=MOMENT, nats_3=MOMENT), True),
        (info("nats-1", nats_2=MOMENT, nats_3=LONG), True),
        (info("nats-1", nats_2=LONG, nats_3=LONG), False),
        (info("nats-1", nats_2=0, nats_3=0), False),  # no contact with them
        ({"cluster": {"leader": "nats-1"}}, True),
        ({}, True),
    ],
)
def test_leader_has_a_quorum_if_a_majority_answered_it_recently(given: dict[str, Any], agreed: bool) -> None:
    assert has_quorum(given) is agreed
