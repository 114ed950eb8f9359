"""The calls inside one tenant: `Client.tenant`."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Generator
from datetime import datetime
from typing import Any

from artcafe.sdk.agent_calls import AgentCalls, KeyCalls
from artcafe.sdk.channel_calls import ChannelCalls
from artcafe.sdk.dead_letter_calls import DeadLetterCalls
from artcafe.sdk.http import HttpClient, given, place
from artcafe.sdk.member_calls import InvitationCalls, MemberCalls
from artcafe.sdk.message_calls import MessageCalls, ScheduledCalls
from artcafe.sdk.pull import PullInbox
from artcafe.sdk.records import AuditEntry, ChainInfo, LimitsInfo, TenantInfo
from artcafe.sdk.subscription_calls import SubscriptionCalls
from artcafe.sdk.tenant_calls import TenantCalls
from artcafe.sdk.usage_calls import UsageCalls
from artcafe.sdk.wake_calls import WakeCalls


class ChainCalls(TenantCalls):
    """The chains of answers between a tenant's agents."""

    async def get(self, chain: str) -> ChainInfo:
        """Return a chain of answers. Raises `ChainNotFound` for one without an answer within the last day."""
        return await self._http.read(ChainInfo, self._path("chains", chain))

    async def release(self, chain: str) -> ChainInfo:
        """Let a stopped chain continue until it has used its limits once more. May be repeated: a chain that is not stopped stays
        as it is."""
        return await self._http.send(ChainInfo, "PATCH", self._path("chains", chain), {"status": "active"})


class AuditCalls(TenantCalls):
    """The audit of a tenant."""

    def list(
        self,
        *,
        agent: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        oldest_first: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[AuditEntry]:
        """List the tenant's audit, newest first unless `oldest_first`.

        `agent` (an id, or `usr:` and a person's sub) selects entries by actor or target. `action` is an action such as
        `agent.login`, or the first part of several. `since` (inclusive) and `until` (exclusive) are aware times.
        """
        query = given(agent=agent, action=action, since=place(since), until=place(until))
        query["order"] = "oldest" if oldest_first else "newest"
        return self._http.all_of(AuditEntry, self._path("audit"), query, limit=limit)


class TenantClient(TenantCalls):
    """The calls inside one tenant, whose id is `tenant`. They raise and repeat as `Client` says."""

    def __init__(self, http: HttpClient, tenant: str) -> None:
        super().__init__(http, tenant)
        self.members, self.invitations = MemberCalls(http, tenant), InvitationCalls(http, tenant)
        self.agents, self.keys = AgentCalls(http, tenant), KeyCalls(http, tenant)
        self.wake = WakeCalls(http, tenant)
        self.channels, self.subscriptions = ChannelCalls(http, tenant), SubscriptionCalls(http, tenant)
        self.messages, self.scheduled = MessageCalls(http, tenant), ScheduledCalls(http, tenant)
        self.dead_letters, self.chains = DeadLetterCalls(http, tenant), ChainCalls(http, tenant)
        self.usage, self.audit = UsageCalls(http, tenant), AuditCalls(http, tenant)

    def __repr__(self) -> str:
        return f"TenantClient({self._tenant!r})"

    async def get(self) -> TenantInfo:
        return await self._http.read(TenantInfo, self._path())

    async def update(self, *, name: str | None = None, plan: str | None = None) -> TenantInfo:
        """Rename the tenant, or move it to another of the plans on offer; the latter is for owners."""
        return await self._http.send(TenantInfo, "PATCH", self._path(), given(name=name, plan=plan))

    async def delete(self) -> None:
        """Delete the tenant with everything in it."""
        await self._http.remove(self._path())

    async def limits(self) -> LimitsInfo:
        """Return the tenant's plan and limits, and what is used of them."""
        return await self._http.read(LimitsInfo, self._path("limits"))

    def inbox(self, agent: str) -> PullInbox:
        """Pull and acknowledge messages of the agent of the client's token."""
        return PullInbox(self._http, self._tenant, agent)

    def __await__(self) -> Generator[Any, Any, TenantInfo]:
        """Return what `get` does. Deprecated: `Client.tenant` was a coroutine function."""
        warnings.warn("await client.tenant(…) is deprecated: use await client.tenant(…).get()", DeprecationWarning, stacklevel=2)
        return self.get().__await__()
