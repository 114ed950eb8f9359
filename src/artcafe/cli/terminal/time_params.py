"""Command-line parameters for times: `1h`, `2026-11-28 10:00` (UTC), or RFC 3339."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from artcafe.rules import times

UNIT_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
"""Seconds by the unit after a number."""

_DURATION: Final = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
_MINUTE: Final = re.compile(r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d)(:\d\d(?:\.\d+)?)?)?", re.ASCII)
_EXAMPLES: Final = "1h, '2026-11-28 10:00' (UTC) or 2026-11-28T10:00:00+01:00"


class TimeParam(click.ParamType[datetime]):
    """A time: RFC 3339, a date with an optional time in UTC, or an offset from now such as `90s`, `15m`, `12h` or `30d`."""

    name = "time"

    def __init__(self, *, ahead: bool = False, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Subtract an offset from the current time, or add it with `ahead`."""
        self._sign, self._clock = (1 if ahead else -1), clock

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return self._parse(str(value).strip())
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a valid time; use for example {_EXAMPLES}", param, ctx)

    def _parse(self, text: str) -> datetime:
        if distance := _DURATION.fullmatch(text):
            return self._clock() + self._sign * timedelta(seconds=int(distance[1]) * UNIT_SECONDS[distance[2]])
        if minute := _MINUTE.fullmatch(text):
            day, clock_time, seconds = minute.groups()
            text = f"{day}T{clock_time or '00:00'}{seconds or ':00'}Z"
        return times.from_text(text)


class SequenceOrTimeParam(TimeParam):
    """A sequence of a channel (digits only), or a time."""

    name = "sequence or time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, int):
            return value
        if str(value).isascii() and str(value).isdigit():
            return int(value)
        return super().convert(value, param, ctx)
