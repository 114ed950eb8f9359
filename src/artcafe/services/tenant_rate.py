"""One rate limit of one tenant on one server: its window, its waiting commands, its refusals and its notices."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from artcafe.errors import RateExceeded
from artcafe.model import TenantId
from artcafe.rules import subjects, times
from artcafe.rules.plans import UNLIMITED, Limit
from artcafe.rules.rate_window import WINDOW_S, RateWindow, WindowUsage
from artcafe.rules.subjects import Subject

LEAST_WAIT_S: Final = 0.1
REFUSAL_S: Final = 0.1
NOTICE_PERCENTS: Final = (80, 100)
NOTICE_S: Final = 60.0
"""A notice of the same limit and percentage is repeated after this time at the earliest."""


class Metered(NamedTuple):
    """What the meter has counted in a month, and up to when."""

    messages: int
    as_of: datetime


ReadMetered = Callable[[TenantId, datetime], Awaitable[Metered | None]]
"""Return the messages stored in the month of a time, or None if nothing is known. Raises `Unavailable`."""


class Notice(NamedTuple):
    """A nearly used (80 %) or used (100 %) limit."""

    limit: Limit
    percent: int
    usage: WindowUsage


class TenantRate(RateWindow):
    """One rate limit of one tenant on this server."""

    __slots__ = (
        "is_due",
        "is_stale",
        "kind",
        "metered_at",
        "noticed",
        "notices",
        "refusal",
        "refused_at",
        "tenant_id",
        "waiters",
    )

    def __init__(self, tenant_id: TenantId, kind: Limit, limit: int, slot: int) -> None:
        super().__init__(limit, slot)
        self.tenant_id, self.kind = tenant_id, kind
        self.is_due = self.is_stale = False
        """Whether more must be reserved, and whether the limit must be read again."""
        self.metered_at = float("-inf")
        self.waiters: list[asyncio.Future[bool]] = []
        self.notices: tuple[Notice, ...] = ()
        self.refusal: RateExceeded | None = None
        self.refused_at = 0.0
        """The last refusal, and its time."""
        self.noticed: dict[tuple[Limit, int], float] = {}

    @property
    def is_unlimited(self) -> bool:
        return self.limit >= UNLIMITED and self.monthly is None

    def advance(self, slot: int) -> int:
        """Begin a slot, as `RateWindow.advance`. Nothing is counted without a limit."""
        if not self.is_unlimited:
            return super().advance(slot)
        self.recent = int(self.tokens < UNLIMITED)
        self.slot, self.tokens, self.low = slot, UNLIMITED, 0
        return 0

    def wanted(self, waiting: int, servers: int) -> int:
        """Return how many units to reserve, as `RateWindow.wanted`. Without a limit, all are there."""
        if not self.is_unlimited:
            return super().wanted(waiting, servers)
        self.tokens = UNLIMITED
        return 0

    def counter(self, slot: int) -> Subject:
        return subjects.rate_counter(self.tenant_id, self.kind, slot)

    def refuse(self, now: float) -> RateExceeded:
        """Return the error of a refusal. It is the same for a moment, since a flood causes many. `now`: epoch seconds."""
        if self.refusal is None or not 0 <= now - self.refused_at < REFUSAL_S:
            self.refusal, self.refused_at = self._new_refusal(now), now
        return self.refusal.with_traceback(None)  # it would grow each time that it is raised

    def _new_refusal(self, now: float) -> RateExceeded:
        kind, usage, monthly = self.kind, self.usage(now), self.monthly_usage()
        if monthly is not None and monthly.left <= usage.left:
            kind, usage = Limit.MESSAGES_A_MONTH, monthly
        # Without any use, the limit is 0.
        wait_s = max(LEAST_WAIT_S, usage.resets_at - now if usage.used else WINDOW_S)
        resets_at = times.to_text(datetime.fromtimestamp(now + wait_s, UTC))
        used = min(usage.used, usage.limit)  # Others may not have given back the excess yet.
        return RateExceeded(kind.value, usage.limit, used, resets_at, wait_s)

    def note(self, now: float) -> None:
        """Update `notices`: limits of messages used to 80 % or 100 %, each once per window."""
        if self.kind is not Limit.MESSAGES_A_MINUTE:
            return
        for kind, usage in ((self.kind, self.usage(now)), (Limit.MESSAGES_A_MONTH, self.monthly_usage())):
            if usage is None or usage.limit >= UNLIMITED:
                continue
            reached = max((each for each in NOTICE_PERCENTS if usage.percent >= each), default=0)
            others = tuple(each for each in self.notices if each.limit is not kind)
            if not reached:
                self.notices = others
            elif now >= self.noticed.get((kind, reached), float("-inf")):
                self.noticed[kind, reached] = usage.resets_at if kind is Limit.MESSAGES_A_MONTH else now + NOTICE_S
                self.notices = (*others, Notice(kind, reached, usage))


def month_of(now: datetime) -> tuple[datetime, datetime]:
    """Return the begin of the calendar month of UTC and that of the next one."""
    begins = datetime(now.year, now.month, 1, tzinfo=UTC)
    ends = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return begins, ends
