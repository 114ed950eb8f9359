"""Limits counted by several processes together behave like those of one process."""

from __future__ import annotations

import pytest

from artcafe.errors import RateLimited
from artcafe.rules.open_connections import OpenConnections
from artcafe.rules.shared_limits import SALT_BYTES, PeerLimits, clear_column, peer_limits, size_bytes, write_salt

COLUMNS = 3


@pytest.fixture
def memory() -> memoryview:
    memory = memoryview(bytearray(size_bytes(COLUMNS)))
    write_salt(memory, b"s" * SALT_BYTES)
    return memory


@pytest.fixture
def processes(memory: memoryview) -> list[PeerLimits]:
    return [peer_limits(memory, column, COLUMNS) for column in range(COLUMNS)]


@pytest.mark.parametrize("limit", ["requests", "connects", "challenges"])
def test_requests_admitted_by_one_process_count_in_all_others(processes: list[PeerLimits], limit: str) -> None:
    first, second, third = (getattr(each, limit)(1.0, 3.0) for each in processes)

    assert [each.take("10.0.0.1", 100.0) for each in (first, second, third)] == [0, 0, 0]
    assert first.take("10.0.0.1", 100.0) == second.take("10.0.0.1", 100.0) == 1.0
    assert second.take("10.0.0.2", 100.0) == 0  # another address
    assert third.take("10.0.0.1", 101.0) == 0  # refilled
    assert first.take("10.0.0.1", 101.0) == 1.0


def test_limits_of_different_kinds_are_independent(processes: list[PeerLimits]) -> None:
    limits = processes[0]
    for make in (limits.requests, limits.connects, limits.challenges):
        assert make(1.0, 1.0).take("10.0.0.1", 100.0) == 0


def test_failed_login_in_one_process_is_charged_in_all(processes: list[PeerLimits]) -> None:
    first, second = (each.challenges(1.0, 10.0) for each in processes[:2])
    key = ("ten_a", "agt_a", "10.0.0.1")

    assert first.take(key, 100.0) == 0
    first.charge(key, 9, 100.0)

    assert second.take(key, 100.0) == 1.0
    assert second.take(("ten_a", "agt_b", "10.0.0.1"), 100.0) == 0


def connections(limits: PeerLimits) -> OpenConnections:
    return OpenConnections(most=100, most_per_address=3, in_all=limits.by_address)


def test_connections_of_an_address_are_limited_across_processes(processes: list[PeerLimits]) -> None:
    first, second = connections(processes[0]), connections(processes[1])
    entered = [first.enter("10.0.0.1"), first.enter("10.0.0.1")]
    second.enter("10.0.0.1")

    for each in (first, second):
        with pytest.raises(RateLimited, match="open connections"):
            each.enter("10.0.0.1")
    assert second.enter("10.0.0.2").address_key == "10.0.0.2"

    first.leave(entered[0])
    second.enter("10.0.0.1")


def test_refused_connection_is_not_counted(processes: list[PeerLimits]) -> None:
    first, second = connections(processes[0]), connections(processes[1])
    entered = [second.enter("10.0.0.1") for _ in range(3)]
    for _ in range(5):
        with pytest.raises(RateLimited):
            first.enter("10.0.0.1")
    for each in entered:
        second.leave(each)

    for _ in range(3):
        first.enter("10.0.0.1")


def test_clearing_the_column_of_a_dead_process_removes_its_connections(memory: memoryview, processes: list[PeerLimits]) -> None:
    first, second = connections(processes[0]), connections(processes[1])
    for _ in range(3):
        first.enter("10.0.0.1")

    clear_column(memory, 0)

    for _ in range(3):
        second.enter("10.0.0.1")
