"""Delays between retries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from artcafe.sdk.backoff import bound_s, delay_s


def test_maximum_delay_doubles_from_100_ms_to_15_s() -> None:
    assert [bound_s(failures) for failures in (1, 2, 3, 7, 8, 9)] == [0.1, 0.2, 0.4, 6.4, 12.8, 15.0]
    assert bound_s(10**9) == 15.0


@given(st.integers(1, 10**9))
def test_delay_is_between_0_and_the_maximum(failures: int) -> None:
    assert 0 <= delay_s(failures) <= bound_s(failures)


def test_many_clients_spread_over_the_whole_range() -> None:
    delays = sorted(delay_s(9) for _ in range(1000))
    assert delays[100] < 5
    assert delays[-100] > 10
