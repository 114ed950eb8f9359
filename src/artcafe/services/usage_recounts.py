"""Recounts of a tenant's log for its admins: a few at once on each server, since each reads the whole log of a period."""

from __future__ import annotations

import asyncio
from typing import Final

from artcafe.errors import Unavailable
from artcafe.model import Principal
from artcafe.observe.clock import Clock
from artcafe.rules import access
from artcafe.rules.usage import PeriodKind, parse_period, period_of
from artcafe.services.recount import Recount, RecountResult

AT_ONCE: Final = 2
"""Recounts on one server. Further ones wait: each takes about a quarter of a core."""


class UsageRecounts:
    """Recounts for authorized principals."""

    def __init__(self, recount: Recount | None, clock: Clock) -> None:
        """`recount` is None on a server without a meter."""
        self._recount, self._clock = recount, clock
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def recount(self, principal: Principal, period: str | None) -> RecountResult:
        """Count the tenant's log of a period again, and compare; the current month by default. May take minutes.

        Raises Forbidden, Invalid and Unavailable.
        """
        access.check(principal, access.Action.READ_USAGE)
        wanted = period_of(self._clock(), PeriodKind.MONTH) if period is None else parse_period(period)
        if self._recount is None:
            raise Unavailable("the meter, which is off on this server,")
        async with self._at_once:
            return await self._recount.recount(principal.tenant_id, wanted)
