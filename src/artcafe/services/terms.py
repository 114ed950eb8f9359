"""Terms of service: the current version, and its acceptances. Agents accept none."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from typing import Final

from artcafe.errors import Conflict, TermsChanged, TermsRequired
from artcafe.model import USER_PREFIX, Acceptance, Record, UserId
from artcafe.observe.clock import Clock
from artcafe.observe.context import origin
from artcafe.rules import fields
from artcafe.rules.pages import FIRST, Page, PageRequest
from artcafe.services.audit import Audit
from artcafe.tables.store import Store

REMEMBERED: Final = 100_000
"""Size of the cache of people who accepted, at some 200 bytes each. An acceptance never expires, and each request checks it."""


class Current(Record, frozen=True, kw_only=True):
    """The terms set by an operator. Until `grace_until`, an acceptance of an earlier version is enough."""

    version: str
    text: str | None = None
    grace_until: datetime | None = None


class Terms:
    """Acceptances of the terms. `current` is None if the operator has set no terms."""

    def __init__(self, store: Store, audit: Audit, clock: Clock, current: Current | None) -> None:
        self._store, self._audit, self._clock, self.current = store, audit, clock, current
        self._accepted: OrderedDict[UserId, None] = OrderedDict()

    async def check(self, user_id: UserId) -> None:
        """Raise TermsRequired unless the person has accepted the current terms, or is in the grace period. Fails closed."""
        current = self.current
        if current is None or await self._has_accepted(user_id, current):
            return
        if not await self._is_in_grace(user_id, current):
            raise TermsRequired(current.version)

    async def outstanding(self, user_id: UserId) -> Current | None:
        """Return the current terms if the person has not accepted them, also during the grace period."""
        current = self.current
        return None if current is None or await self._has_accepted(user_id, current) else current

    async def list(self, user_id: UserId, page_request: PageRequest = FIRST) -> Page[Acceptance]:
        """Return a page of the person's acceptances."""
        return await self._store.acceptances(user_id).list(page_request)

    async def accept(self, user_id: UserId, version: str | None = None) -> Acceptance:
        """Record an acceptance of the current terms, with the time and the observed address. May be repeated: the first
        record stays. Raises TermsChanged if `version` is not the current one, and Conflict if there are no terms."""
        if self.current is None:
            raise Conflict("this service has no terms to accept")
        if version not in (None, self.current.version):
            raise TermsChanged(self.current.version)
        fields.user_id(user_id)
        acceptances = self._store.acceptances(user_id)
        accepted = Acceptance(
            user_id=user_id,
            version=self.current.version,
            accepted_at=self._clock(),
            ip_address=origin().address or "",
        )
        async with self._audit.change(None, f"{USER_PREFIX}{user_id}", "terms.accept", self.current.version):
            if not await acceptances.insert(accepted):
                accepted = await acceptances.get(self.current.version) or accepted
        self._remember(user_id)
        return accepted

    async def _has_accepted(self, user_id: UserId, current: Current) -> bool:
        if user_id in self._accepted:
            self._accepted.move_to_end(user_id)
            return True
        if not fields.is_user_id(user_id) or await self._store.acceptances(user_id).get(current.version) is None:
            return False
        self._remember(user_id)
        return True

    async def _is_in_grace(self, user_id: UserId, current: Current) -> bool:
        if current.grace_until is None or self._clock() >= current.grace_until:
            return False
        return await self._store.acceptances(user_id).has_any()

    def _remember(self, user_id: UserId) -> None:
        self._accepted[user_id] = None
        if len(self._accepted) > REMEMBERED:
            self._accepted.popitem(last=False)
