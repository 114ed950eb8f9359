"""The clock of the process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""A function that returns aware UTC time. It is passed to every component that depends on the time."""


def now() -> datetime:
    """Return the current time, in UTC."""
    return datetime.now(UTC)
