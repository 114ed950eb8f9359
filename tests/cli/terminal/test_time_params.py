from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest

from artcafe.cli.terminal.time_params import SequenceOrTimeParam, TimeParam

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def now() -> datetime:
    return NOW


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("15m", NOW - timedelta(minutes=15)),
        ("1h", NOW - timedelta(hours=1)),
        ("30d", NOW - timedelta(days=30)),
        ("2026-11-28 10:00", datetime(2026, 11, 28, 10, tzinfo=UTC)),
        ("2026-11-28T10:00", datetime(2026, 11, 28, 10, tzinfo=UTC)),
        ("2026-11-28 10:00:30", datetime(2026, 11, 28, 10, 0, 30, tzinfo=UTC)),
        ("2026-11-28", datetime(2026, 11, 28, tzinfo=UTC)),
        ("2026-11-28T10:00:00+01:00", datetime(2026, 11, 28, 9, tzinfo=UTC)),
        (" 2026-11-28T10:00:00Z ", datetime(2026, 11, 28, 10, tzinfo=UTC)),
    ],
)
def test_time_param_parses_offsets_dates_and_rfc_3339(typed: str, meant: datetime) -> None:
    assert TimeParam(clock=now).convert(typed, None, None) == meant


def test_offset_with_ahead_is_in_the_future() -> None:
    assert TimeParam(ahead=True, clock=now).convert("30d", None, None) == NOW + timedelta(days=30)


@pytest.mark.parametrize(
    "typed", ["", "h", "1w", "1.5h", "yesterday", "2026-13-01", "2026-11-28 25:00", "999999999d", "10:00", "\u0661h"]
)
def test_other_text_is_refused_with_examples(typed: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a valid time; use for example 1h, '2026-11-28 10:00'"):
        TimeParam(clock=now).convert(typed, None, None)


def test_digits_are_a_sequence() -> None:
    parameter = SequenceOrTimeParam(clock=now)
    assert parameter.convert("41", None, None) == 41
    assert parameter.convert("1h", None, None) == NOW - timedelta(hours=1)
    with pytest.raises(click.BadParameter):
        parameter.convert("-1", None, None)
