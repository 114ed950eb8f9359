"""Calls for the subscriptions of a tenant's agents to its channels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from artcafe.sdk.http import given, place
from artcafe.sdk.records import SubscriptionInfo
from artcafe.sdk.tenant_calls import TenantCalls


class SubscriptionCalls(TenantCalls):
    """The subscriptions of a tenant."""

    async def create(self, channel: str, agent: str, *, permissions: Sequence[str] | None = None) -> SubscriptionInfo:
        """Subscribe an agent to a channel. May be repeated: an existing subscription keeps its state, except for the permissions
        (`receive`, `publish`, for a managed channel) if they are given."""
        body = given(permissions=permissions) or None
        return await self._http.send(SubscriptionInfo, "PUT", self._of(channel, agent), body)

    def list(self, channel: str, *, limit: int | None = None) -> AsyncIterator[SubscriptionInfo]:
        """List the subscriptions of a channel."""
        return self._http.all_of(SubscriptionInfo, self._path("channels", channel, "subscriptions"), limit=limit)

    def list_of_agent(self, agent: str, *, limit: int | None = None) -> AsyncIterator[SubscriptionInfo]:
        """List the subscriptions of an agent."""
        return self._http.all_of(SubscriptionInfo, self._path("agents", agent, "subscriptions"), limit=limit)

    async def get(self, channel: str, agent: str) -> SubscriptionInfo:
        return await self._http.read(SubscriptionInfo, self._of(channel, agent))

    async def update(
        self,
        channel: str,
        agent: str,
        *,
        status: str | None = None,
        cursor: int | datetime | str | None = None,
    ) -> SubscriptionInfo:
        """Change the status of a subscription, or move its cursor.

        `paused` stops delivery and keeps the cursor; `active` continues from it. `cursor` is a sequence up to which everything
        counts as acknowledged, `first` (before the oldest stored message), `last` (after the newest), or an aware time (before
        the first message stored then or later). The agent's connections continue there; messages between a lower place and the
        old one are delivered again, and those up to a higher place never.
        """
        body = given(status=status, cursor=place(cursor))
        # Another attempt would move `last` beyond what is published meanwhile.
        return await self._http.send(SubscriptionInfo, "PATCH", self._of(channel, agent), body, repeats=cursor != "last")

    async def delete(self, channel: str, agent: str) -> None:
        """Delete a subscription with its cursor."""
        await self._http.remove(self._of(channel, agent))

    def _of(self, channel: str, agent: str) -> str:
        return self._path("channels", channel, "subscriptions", agent)
