"""Filters for audit entries."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from artcafe.model import Entry

SLACK: Final = timedelta(minutes=1)
"""The maximum difference between the order of entries and their times: each server of a fleet has its own clock."""


class AuditFilter(NamedTuple):
    """A filter by agent or person, action, and time from `since` (inclusive) to `until` (exclusive); None matches any.

    `agent` matches the actor or the target. `action` is a full name, such as `agent.login`, or the first part of several:
    `agent`.
    """

    agent: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, entry: Entry) -> bool:
        """Return whether the entry matches the filter."""
        return (
            self.agent in (None, entry.actor, entry.target)
            and (self.action is None or f"{entry.action}.".startswith(f"{self.action}."))
            and (self.since is None or self.since <= entry.time)
            and (self.until is None or entry.time < self.until)
        )

    def is_past_end(self, entry: Entry, *, oldest_first: bool) -> bool:
        """Return whether no later entry can match, in the direction of reading."""
        if oldest_first:
            return self.until is not None and entry.time >= self.until + SLACK
        return self.since is not None and entry.time < self.since - SLACK


EVERYTHING: Final = AuditFilter()
