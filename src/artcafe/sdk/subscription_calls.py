"""The methods of `Client` for subscriptions of agents to channels, and for what became of messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import msgspec

from artcafe.sdk.http import HttpClient, given, path_of, place
from artcafe.sdk.records import SubscriptionInfo


class ReceiptInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a message for one recipient: `pending`, `delivered`, `acked`, `dead_lettered`, `skipped`, `away` or
    `unknown`. `cursor_age_s` is the time since its last ack was written; None without one."""

    agent_id: str
    agent_handle: str | None = None
    state: str
    cursor: int
    cursor_age_s: int | None = None
    last_seen: datetime | None = None


class SubscriptionCalls:
    """Calls over one HTTP client; `Client` inherits them."""

    _http: HttpClient

    async def subscribe(
        self, tenant: str, channel: str, agent: str, *, permissions: Sequence[str] | None = None
    ) -> SubscriptionInfo:
        """Subscribe an agent to a channel. May be repeated: an existing subscription keeps its state, except for the permissions
        (`receive`, `publish`, for a managed channel) if they are given."""
        body = given(permissions=permissions) or None
        return await self._http.send(SubscriptionInfo, "PUT", _subscription(tenant, channel, agent), body)

    def subscriptions(self, tenant: str, channel: str, *, limit: int | None = None) -> AsyncIterator[SubscriptionInfo]:
        """List the subscriptions of a channel."""
        return self._http.all_of(SubscriptionInfo, path_of(tenant, "channels", channel, "subscriptions"), limit=limit)

    def agent_subscriptions(self, tenant: str, agent: str, *, limit: int | None = None) -> AsyncIterator[SubscriptionInfo]:
        """List the subscriptions of an agent."""
        return self._http.all_of(SubscriptionInfo, path_of(tenant, "agents", agent, "subscriptions"), limit=limit)

    async def subscription(self, tenant: str, channel: str, agent: str) -> SubscriptionInfo:
        return await self._http.read(SubscriptionInfo, _subscription(tenant, channel, agent))

    async def update_subscription(
        self,
        tenant: str,
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
        return await self._http.send(SubscriptionInfo, "PATCH", _subscription(tenant, channel, agent), body)

    def receipts(self, tenant: str, channel: str, seq: int, *, limit: int | None = None) -> AsyncIterator[ReceiptInfo]:
        """List the recipients of a stored message, and what became of it; for members, and for the agent that sent it."""
        path = path_of(tenant, "channels", channel, "messages", str(seq), "receipts")
        return self._http.all_of(ReceiptInfo, path, limit=limit)

    async def delete_subscription(self, tenant: str, channel: str, agent: str) -> None:
        """Delete a subscription with its cursor."""
        await self._http.remove(_subscription(tenant, channel, agent))


def _subscription(tenant: str, channel: str, agent: str) -> str:
    return path_of(tenant, "channels", channel, "subscriptions", agent)
