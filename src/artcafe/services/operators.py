"""The operators of the platform: people who may read its state. They get no right inside any tenant by that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from artcafe.errors import Forbidden
from artcafe.model import AgentPrincipal, Outcome, UserId
from artcafe.services.audit_counters import AuditCounters
from artcafe.services.authentication import Caller
from artcafe.services.terms import Terms

READ_PLATFORM: Final = "read the platform's state: only users in the setting OPERATORS may"
"""Completes the error message "… may not …"."""


class Operators:
    """Admits operators to the platform's routes. Fails closed: without the setting, nobody is an operator."""

    def __init__(self, user_ids: Iterable[UserId], terms: Terms, counters: AuditCounters) -> None:
        """`user_ids`: those of the identity provider, as `GET /v1/me` returns them."""
        self._user_ids, self._terms, self._counters = frozenset(user_ids), terms, counters

    def is_operator(self, caller: Caller) -> bool:
        """Return whether the holder of a token is an operator. An agent never is, whatever its id."""
        return not isinstance(caller, AgentPrincipal) and caller in self._user_ids

    async def admit(self, caller: Caller, request: str) -> UserId:
        """Return the operator who calls, and count a refused `request` in the platform's audit.

        Raises Forbidden and TermsRequired.
        """
        try:
            user = self._checked(caller)
        except Forbidden as exc:
            self._count(caller, exc, request)
            raise
        await self._terms.check(user)
        return user

    def _checked(self, caller: Caller) -> UserId:
        if not self.is_operator(caller):
            raise Forbidden(READ_PLATFORM, "an agent" if isinstance(caller, AgentPrincipal) else f"the user {caller}")
        assert not isinstance(caller, AgentPrincipal)
        return caller

    def _count(self, caller: Caller, refused: Forbidden, request: str) -> None:
        """Count a refused request in the platform's audit, and an agent's in that of its tenant too."""
        facts = {"code": refused.code, "attempt": refused.action, "request": request}
        if isinstance(caller, AgentPrincipal):
            self._counters.count_refusal(caller, refused, request=request)
            self._counters.count(None, caller.sender, "access.refused", Outcome.REFUSED, tenant=caller.tenant_id, **facts)
        else:
            self._counters.count(None, f"usr:{caller}", "access.refused", Outcome.REFUSED, **facts)
