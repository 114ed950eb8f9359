"""The clock of the process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Aware UTC time. One is passed in wherever time decides something."""


def now() -> datetime:
    """The real clock."""
    return datetime.now(UTC)
