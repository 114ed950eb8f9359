from __future__ import annotations

from collections import Counter
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.errors import Overloaded, RateLimited
from artcafe.rules.clients import Proxies
from artcafe.rules.open_connections import SPARE_PER_ADDRESS, CountedConnection, OpenConnections, capacity
from artcafe.rules.quotas import Quota, QuotaExceeded

TAKES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), max_size=60)


@given(TAKES, st.integers(1, 20), st.integers(1, 20))
def test_quota_is_never_exceeded_and_released_amounts_can_be_taken_again(
    takes: list[tuple[str, int]], total: int, per_key: int
) -> None:
    shares, held = Quota(total, per_key), Counter[str]()
    for key, amount in takes:
        refusal = shares.take(key, amount)
        fits_key, fits_all = held[key] + amount <= per_key, held.total() + amount <= total
        assert refusal is (None if fits_key and fits_all else QuotaExceeded.TOTAL if fits_key else QuotaExceeded.KEY)
        if refusal is None:
            held[key] += amount
        assert shares.held == held.total()
    for key, amount in held.items():
        if amount:
            shares.release(key, amount)
    assert shares.held == 0
    assert shares.take("a", min(total, per_key)) is None


def test_address_holds_at_most_its_limit_and_never_more_than_half() -> None:
    open_ = OpenConnections(None, most=10, most_per_address=3)
    mine = [open_.enter("192.0.2.1") for _ in range(3)]
    with pytest.raises(RateLimited, match="too many open connections from this address"):
        open_.enter("192.0.2.1")
    open_.leave(mine.pop())
    open_.enter("192.0.2.1")

    wide = OpenConnections(None, most=10, most_per_address=1000)
    for _ in range(5):
        wide.enter("2001:db8::1")
    with pytest.raises(RateLimited):
        wide.enter("2001:db8::2")  # one customer of a network has a whole /64
    wide.enter("2001:db8:0:1::1")


def test_spare_connections_for_health_remain_when_all_others_are_taken() -> None:
    open_ = OpenConnections(None, most=4, most_per_address=0)
    for number in range(4):
        assert not open_.enter(f"192.0.2.{number}", may_use_spare=True).is_spare
    with pytest.raises(Overloaded):
        open_.enter("192.0.2.9")
    spare = [open_.enter("192.0.2.9", may_use_spare=True) for _ in range(SPARE_PER_ADDRESS)]
    assert all(entry.is_spare for entry in spare)
    with pytest.raises(Overloaded):
        open_.enter("192.0.2.9", may_use_spare=True)
    for entry in spare:
        open_.leave(entry)
    assert open_.count == 4


def test_clients_behind_a_proxy_are_counted_by_their_own_address() -> None:
    open_ = OpenConnections(Proxies([ip_network("10.0.0.0/8")]), most=100, most_per_address=2)
    entries = [open_.enter("10.0.0.1") for _ in range(10)]
    assert entries == [CountedConnection(None)] * 10
    for entry in entries[:2]:
        open_.identify(entry, "192.0.2.1")
    with pytest.raises(RateLimited):
        open_.identify(entries[2], "192.0.2.1")
    open_.identify(entries[2], "192.0.2.2")
    for entry in entries:
        open_.leave(entry)
    assert open_.count == 0
    open_.enter("192.0.2.1")


@pytest.mark.parametrize(("descriptors", "most"), [(65_536, 57_344), (1024, 896), (256, 192), (64, 1)])
def test_descriptors_are_reserved(descriptors: int, most: int) -> None:
    assert capacity(descriptors) == most
