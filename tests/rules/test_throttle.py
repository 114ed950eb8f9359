from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.rules.throttle import Buckets

STEPS = st.lists(st.floats(0, 10), min_size=1, max_size=200)


@given(steps=STEPS, rate=st.floats(0.1, 100), burst=st.integers(1, 20))
def test_nobody_spends_more_than_a_burst_and_what_is_regained_since(steps: list[float], rate: float, burst: int) -> None:
    buckets, now, granted = Buckets(rate, burst), 0.0, 0
    for step in steps:
        now += step
        granted += buckets.take("a", now) == 0
        assert granted <= burst + now * rate + 1e-6


@given(steps=STEPS, rate=st.floats(0.1, 100), burst=st.integers(1, 20))
def test_who_waits_as_long_as_was_said_goes_on(steps: list[float], rate: float, burst: int) -> None:
    buckets, now = Buckets(rate, burst), 0.0
    for step in steps:
        now += step
        wait_s = buckets.take("a", now)
        if wait_s:
            now += wait_s + 1e-6
            assert buckets.take("a", now) == 0


def test_one_key_does_not_spend_for_another() -> None:
    buckets = Buckets(1, 1)
    assert buckets.take("a", 0) == 0
    assert buckets.take("a", 0) == pytest.approx(1)
    assert buckets.take("b", 0) == 0


def test_a_charge_is_taken_whether_or_not_it_is_there_but_not_for_ever() -> None:
    buckets = Buckets(1, 10)
    for _ in range(100):
        buckets.charge("a", 9, 0)
    assert buckets.take("a", 0) == pytest.approx(11)
    assert buckets.take("a", 11) == 0


def test_a_rate_of_nothing_bounds_nothing_and_keeps_nothing() -> None:
    buckets = Buckets(0, 0)
    buckets.charge("a", 9, 0)
    assert [buckets.take("a", 0) for _ in range(1000)] == [0] * 1000
    assert len(buckets) == 0


def test_memory_is_bounded_and_whoever_was_seen_longest_ago_is_forgotten() -> None:
    buckets = Buckets(1, 1, max_keys=100)
    for number in range(1000):
        buckets.take(number, 0)
        buckets.take("busy", 0)
    assert len(buckets) == 100
    assert buckets.take("busy", 0) > 0
    assert buckets.take(0, 0) == 0
