"""Calls for the wake policies of a tenant's agents: webhooks for messages that wait while an agent is connected nowhere."""

from __future__ import annotations

from datetime import datetime

import msgspec

from artcafe.sdk.http import given
from artcafe.sdk.tenant_calls import TenantCalls


class WakePolicyInfo(msgspec.Struct, frozen=True):
    """The wake policy of an agent, and what became of its webhooks. `url` is None if it has none."""

    agent_id: str
    url: str | None
    interval_s: int | None
    quiet_hours: str | None
    enabled: bool
    problem: str | None
    """Why the server has disabled it."""
    secret: str | None
    """For the library that verifies the webhooks. Set only in the answer to the call that made it."""
    sent_at: datetime | None
    """The last webhook that was answered with success, and the failed attempts since."""
    failures: int
    failure: str | None


class WakeCalls(TenantCalls):
    """The wake policies of a tenant's agents."""

    async def get(self, agent: str) -> WakePolicyInfo:
        """Return an agent's wake policy, without its secret, and what became of its webhooks."""
        return await self._http.read(WakePolicyInfo, self._path("agents", agent, "wake"))

    async def set(
        self,
        agent: str,
        url: str,
        *,
        interval_s: int | None = None,
        quiet_hours: str | None = None,
        enabled: bool = True,
        new_secret: bool = False,
    ) -> WakePolicyInfo:
        """Send a webhook to `url` when messages wait for an agent that is connected nowhere; it replaces an earlier policy.

        At most one is sent in `interval_s` (60 by default), and none in `quiet_hours` (`22:00-06:00` of UTC). The answer has the
        `secret` if one was made: for the first policy, or with `new_secret`. Raises `Invalid`.
        """
        body = {"url": url, "enabled": enabled, "new_secret": new_secret, **given(interval_s=interval_s, quiet_hours=quiet_hours)}
        # Not repeated: a lost answer had the secret.
        return await self._http.send(WakePolicyInfo, "PUT", self._path("agents", agent, "wake"), body, repeats=False)

    async def remove(self, agent: str) -> None:
        """Remove an agent's wake policy and its secrets. May be repeated."""
        await self._http.remove(self._path("agents", agent, "wake"))
