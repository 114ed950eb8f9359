from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.rules import times

zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001 (the zone is drawn separately)
    max_value=datetime(9998, 12, 31),  # noqa: DTZ001 (as above)
    timezones=zones,
)


def test_time_is_formatted_in_utc_with_milliseconds() -> None:
    moment = datetime(2026, 11, 22, 18, 50, 57, 123_999, tzinfo=timezone(timedelta(hours=2)))
    assert times.to_text(moment) == "2026-11-22T16:50:57.123Z"


def test_time_without_a_zone_is_not_formatted() -> None:
    with pytest.raises(ValueError, match="zone"):
        times.to_text(datetime(2026, 11, 22))  # noqa: DTZ001 (naive on purpose)


@given(moments)
def test_formatted_time_is_parsed_back_to_the_millisecond(moment: datetime) -> None:
    assert times.from_text(times.to_text(moment)) == moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)


@given(moments, moments)
def test_texts_sort_like_their_times(one: datetime, other: datetime) -> None:
    if times.to_text(one) < times.to_text(other):
        assert one < other


@given(moments)
def test_every_time_with_any_zone_is_parsed(moment: datetime) -> None:
    assert times.from_text(moment.isoformat()) == moment


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-11-22T16:50:57Z", "2026-11-22T16:50:57.000Z"),
        ("2026-11-22t16:50:57z", "2026-11-22T16:50:57.000Z"),
        ("2026-11-22 16:50:57.1+00:00", "2026-11-22T16:50:57.100Z"),
        ("2026-11-22T16:50:57.123456789-05:30", "2026-11-22T22:20:57.123Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
    ],
)
def test_other_forms_of_rfc_3339_are_parsed(text: str, same: str) -> None:
    assert times.to_text(times.from_text(text)) == same


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-22",
        "2026-11-22T16:50:57",
        "2026-11-22T16:50Z",
        "2026-13-22T16:50:57Z",
        "2026-11-22T16:50:61Z",
        "2026-11-22T16:50:57.Z",
        "2026-11-22T16:50:57+24:00",
        "2026-11-22T16:50:57+01:75",
        "9999-12-31T23:59:60Z",
        "0001-01-01T00:00:00+01:00",
        "٢٠٢٦-11-22T16:50:57Z",
        "2026-11-22T16:50:57Z\n",
    ],
)
def test_text_other_than_an_rfc_3339_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (each has its own message)
        times.from_text(text)


@given(st.text())
def test_any_text_raises_only_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert times.from_text(text).tzinfo is UTC
