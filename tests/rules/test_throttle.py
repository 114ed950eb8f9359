from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.rules.throttle import Buckets

STEPS = st.lists(st.floats(0, 10), min_size=1, max_size=200)


@given(steps=STEPS, rate=st.floats(0.1, 100), burst=st.integers(1, 20))
def test_key_never_spends_more_than_its_burst_and_refill(steps: list[float], rate: float, burst: int) -> None:
    buckets, now, granted = Buckets(rate, burst), 0.0, 0
    for step in steps:
        now += step
        granted += buckets.take("a", now) == 0
        assert granted <= burst + now * rate + 1e-6


@given(steps=STEPS, rate=st.floats(0.1, 100), burst=st.integers(1, 20))
def test_key_can_spend_after_the_returned_wait(steps: list[float], rate: float, burst: int) -> None:
    buckets, now = Buckets(rate, burst), 0.0
    for step in steps:
        now += step
        wait_s = buckets.take("a", now)
        if wait_s:
            now += wait_s + 1e-6
            assert buckets.take("a", now) == 0


def test_keys_do_not_affect_each_other() -> None:
    buckets = Buckets(1, 1)
    assert buckets.take("a", 0) == 0
    assert buckets.take("a", 0) == pytest.approx(1)
    assert buckets.take("b", 0) == 0


def test_charge_exceeds_the_burst_by_a_bounded_amount() -> None:
    buckets = Buckets(1, 10)
    for _ in range(100):
        buckets.charge("a", 9, 0)
    assert buckets.take("a", 0) == pytest.approx(11)
    assert buckets.take("a", 11) == 0


def test_rate_of_zero_limits_nothing_and_stores_nothing() -> None:
    buckets = Buckets(0, 0)
    buckets.charge("a", 9, 0)
    assert [buckets.take("a", 0) for _ in range(1000)] == [0] * 1000
    assert len(buckets) == 0


def test_memory_is_bounded_and_the_least_recently_used_key_is_dropped() -> None:
    buckets = Buckets(1, 1, max_keys=100)
    for number in range(1000):
        buckets.take(number, 0)
        buckets.take("busy", 0)
    assert len(buckets) == 100
    assert buckets.take("busy", 0) > 0
    assert buckets.take(0, 0) == 0
