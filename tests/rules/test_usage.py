from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.errors import Invalid
from artcafe.rules.usage import Attribution, Metric, Part, Period, PeriodKind, metric_id, parse_period, parts_prefix, period_of

MOMENT = datetime(2026, 11, 28, 10, 59, 59, 999_999, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "text"), [(PeriodKind.HOUR, "2026-11-28T10"), (PeriodKind.DAY, "2026-11-28"), (PeriodKind.MONTH, "2026-11")]
)
def test_periods_are_named_in_utc(kind: PeriodKind, text: str) -> None:
    assert period_of(MOMENT, kind).text == text
    assert period_of(MOMENT.astimezone(timezone(timedelta(hours=14))), kind).text == text
    assert parse_period(text).kind is kind


def test_time_without_a_zone_has_no_period() -> None:
    with pytest.raises(ValueError, match="zone"):
        period_of(MOMENT.replace(tzinfo=None), PeriodKind.DAY)


@given(st.datetimes(max_value=MOMENT.replace(year=9998, tzinfo=None), timezones=st.just(UTC)), st.sampled_from(PeriodKind))
def test_period_contains_its_moment_and_ends_where_the_next_begins(moment: datetime, kind: PeriodKind) -> None:
    period = period_of(moment, kind)
    assert parse_period(period.text) == period
    assert period.start <= moment < period.end
    assert period_of(period.end, kind).start == period.end
    assert [each.kind for each in Period(period_of(moment, PeriodKind.HOUR).text).enclosing()] == list(PeriodKind)


@pytest.mark.parametrize(
    "text",
    ["", "2026", "2026-13", "2026-00", "2026-11-31", "2026-11-28T24", "2026-11-28T1", "2026-11-28T10:00", " 2026-11", "٢٠٢٦-11",
     "0000-01", "9999-12"],
)  # fmt: skip
def test_other_text_is_refused_with_the_formats(text: str) -> None:
    with pytest.raises(Invalid, match="2026-11-28T10"):
        parse_period(text)


def test_hours_and_days_expire_and_months_stay() -> None:
    expiries = [parse_period(text).expires_at for text in ("2026-11-28T10", "2026-11-28", "2026-11")]
    assert expiries == [datetime(2027, 1, 2, 11, tzinfo=UTC), datetime(2028, 1, 3, tzinfo=UTC), None]


def test_keys_of_rows_list_a_period_in_order() -> None:
    month = Period("2026-11")
    part = Part(Attribution.AGENT, "usr:a#b")
    assert metric_id(month, Metric.MESSAGES_STORED) == "2026-11#messages_stored"
    assert metric_id(month, Metric.MESSAGES_STORED, part) == "2026-11#messages_stored#agent#usr:a#b"
    prefix = parts_prefix(month, Metric.MESSAGES_STORED, Attribution.AGENT)
    assert metric_id(month, Metric.MESSAGES_STORED, part).startswith(prefix)
