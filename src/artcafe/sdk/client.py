"""The public class `Client`, a typed client of the REST API for people, administrators and agents.

`sdk.http` sends the requests, and `sdk.records` has the types of the responses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, Unpack

from artcafe.sdk.http import TIMEOUT_S, HttpClient, given, path_of, place
from artcafe.sdk.keys import Signer, load_signer
from artcafe.sdk.messages import Gap, warn_of
from artcafe.sdk.outbox import MAX_RATE_WAIT_S
from artcafe.sdk.people import People
from artcafe.sdk.publishing import PublishRoutes
from artcafe.sdk.pull import PullInbox
from artcafe.sdk.records import (
    AgentInfo,
    AgentKeyInfo,
    AuditEntry,
    ChainInfo,
    ChannelInfo,
    Home,
    KeptMessage,
    LimitsInfo,
    Me,
    QueueOptions,
    TenantInfo,
    Token,
)
from artcafe.sdk.redrives import Redriving
from artcafe.sdk.rest_login import log_in
from artcafe.sdk.subscription_calls import SubscriptionCalls
from artcafe.sdk.usage import read_usage
from artcafe.sdk.usage_records import Recounted, Usage
from artcafe.wire import replies


class Client(PublishRoutes, Redriving, SubscriptionCalls):
    """A client of a platform's REST API with one token. Use it in `async with`.

    `url` may be several addresses of the platform, in a sequence or separated by commas: if one accepts no connection, the
    request goes to the next.

    Every method raises the server's error; `Unavailable` if the server cannot be reached or a proxy responds with 502 to 504, and
    nothing was changed; and `OutcomeUnknown` if the response was lost, except for reads: repeat them. Methods that
    create something accept a `key`: calls repeated with one key create it once. Lists follow all pages, up to `limit` items if it
    is given. Updates skip arguments of None.

    A request above a rate limit (429) is repeated after the time that the server gives, for at most `max_rate_wait_s` in all;
    then it raises `RateExceeded` or `RateLimited`. With 0 it never waits.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        token: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        max_rate_wait_s: float = MAX_RATE_WAIT_S,
    ) -> None:
        self._http = HttpClient(url, token, timeout_s, max_rate_wait_s)

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.__aexit__(exc_type, exc, traceback)

    @property
    def url(self) -> str:
        """The address of the server that responded last."""
        return self._http.url

    @property
    def token(self) -> str | None:
        """The access token of every request. Setting it ends the renewal of a login."""
        return self._http.token

    @token.setter
    def token(self, token: str | None) -> None:
        self._http.token, self._http.renew = token, None

    @property
    def people(self) -> People:
        """Methods for members, invitations and terms."""
        return People(self._http)

    async def home(self) -> Home:
        """Return the platform's addresses; needs no token."""
        return await self._http.read(Home, "/v1")

    async def me(self) -> Me:
        """Return the principal of the token."""
        return await self._http.read(Me, "/v1/me")

    async def login(self, tenant: str, agent: str, key: Signer | str | Path, *, service: str | None = None) -> Token:
        """Log an agent in by its SSH key, and use its token from now on. A request with an expired token logs in again.

        `key` is a signer, the path of a private key, or the path of a `.pub` file whose private half ssh-agent holds. `service`
        is the only service to log in to; without it, the service of this login is required from now on. Setting `token` ends the
        renewal. Raises `BadCredentials`, `ChallengeRefused` and `KeyUnusable`; a later request raises them too if it has to log
        in again.
        """
        signer = load_signer(key) if isinstance(key, str | Path) else key
        token, service = await log_in(self._http, tenant, agent, signer, service)
        self._http.renew = partial(log_in, self._http, tenant, agent, signer, service)
        return token

    async def create_tenant(self, name: str, *, key: str | None = None) -> TenantInfo:
        return await self._http.send(TenantInfo, "POST", "/v1/tenants", {"name": name}, key=key)

    def tenants(self, *, limit: int | None = None) -> AsyncIterator[TenantInfo]:
        return self._http.all_of(TenantInfo, "/v1/tenants", limit=limit)

    async def tenant(self, tenant: str) -> TenantInfo:
        return await self._http.read(TenantInfo, path_of(tenant))

    async def rename_tenant(self, tenant: str, name: str) -> TenantInfo:
        return await self._http.send(TenantInfo, "PATCH", path_of(tenant), {"name": name})

    async def choose_plan(self, tenant: str, plan: str) -> TenantInfo:
        """Move a tenant to another of the plans on offer; for owners."""
        return await self._http.send(TenantInfo, "PATCH", path_of(tenant), {"plan": plan})

    async def limits(self, tenant: str) -> LimitsInfo:
        """Return the tenant's plan and limits, and what is used of them."""
        return await self._http.read(LimitsInfo, path_of(tenant, "limits"))

    async def delete_tenant(self, tenant: str) -> None:
        """Delete a tenant with everything in it."""
        await self._http.remove(path_of(tenant))

    async def create_agent(
        self,
        tenant: str,
        name: str,
        public_key: str,
        *,
        handle: str | None = None,
        description: str = "",
        capabilities: Sequence[str] = (),
        key: str | None = None,
    ) -> AgentInfo:
        """Register an agent. `public_key` is the line of its `.pub` file. Without a `handle` it gets one made from its name.

        Raises `HandleTaken` if another agent has the handle.
        """
        body = {"name": name, "public_key": public_key, "description": description, "capabilities": list(capabilities)}
        body |= given(handle=handle)
        return await self._http.send(AgentInfo, "POST", path_of(tenant, "agents"), body, key=key)

    def agents(
        self,
        tenant: str,
        *,
        status: str | None = None,
        capability: str | None = None,
        connected: bool | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[AgentInfo]:
        query = given(status=status, capability=capability, connected=connected)
        return self._http.all_of(AgentInfo, path_of(tenant, "agents"), query, limit=limit)

    async def agent(self, tenant: str, agent: str) -> AgentInfo:
        return await self._http.read(AgentInfo, path_of(tenant, "agents", agent))

    async def update_agent(
        self,
        tenant: str,
        agent: str,
        *,
        name: str | None = None,
        handle: str | None = None,
        public_key: str | None = None,
        description: str | None = None,
        capabilities: Sequence[str] | None = None,
        status: str | None = None,
    ) -> AgentInfo:
        """Change an agent. Another key or status (`active`, `disabled`) ends its tokens and connections."""
        body = given(name=name, handle=handle, public_key=public_key, description=description, status=status)
        body |= given(capabilities=capabilities)
        return await self._http.send(AgentInfo, "PATCH", path_of(tenant, "agents", agent), body)

    async def delete_agent(self, tenant: str, agent: str) -> None:
        """Delete an agent with its subscriptions; its tokens and connections end."""
        await self._http.remove(path_of(tenant, "agents", agent))

    async def add_key(
        self, tenant: str, agent: str, public_key: str, *, not_after: datetime | None = None, key: str | None = None
    ) -> AgentKeyInfo:
        """Add a key for the agent's logins, optionally valid only until `not_after`. An agent may have five besides its first
        one."""
        body = {"public_key": public_key, **given(not_after=place(not_after))}
        return await self._http.send(AgentKeyInfo, "POST", path_of(tenant, "agents", agent, "keys"), body, key=key)

    def keys(self, tenant: str, agent: str, *, limit: int | None = None) -> AsyncIterator[AgentKeyInfo]:
        """List the agent's keys, including its first one."""
        return self._http.all_of(AgentKeyInfo, path_of(tenant, "agents", agent, "keys"), limit=limit)

    async def update_key(self, tenant: str, agent: str, id: str, *, status: str) -> AgentKeyInfo:
        """Change the status of a key. `disabled` ends only the tokens and connections opened by it; `active` allows logins
        again."""
        return await self._http.send(AgentKeyInfo, "PATCH", path_of(tenant, "agents", agent, "keys", id), {"status": status})

    async def revoke_key(self, tenant: str, agent: str, id: str) -> None:
        """Remove a key from the agent. Only the tokens and connections opened by it end."""
        await self._http.remove(path_of(tenant, "agents", agent, "keys", id))

    async def create_channel(
        self,
        tenant: str,
        name: str,
        *,
        handle: str | None = None,
        description: str = "",
        type: str = "broadcast",
        access: str = "open",
        retention_s: int | None = None,
        key: str | None = None,
        **queue: Unpack[QueueOptions],
    ) -> ChannelInfo:
        """Create a channel. Without a `handle` it gets one made from its name. `retention_s`: seconds to keep messages; None: the
        plan's maximum. `queue`: of a `queue` channel. Raises `HandleTaken` if another channel has the handle."""
        body = given(
            name=name, handle=handle, description=description, type=type, access=access, retention_s=retention_s, **queue
        )
        return await self._http.send(ChannelInfo, "POST", path_of(tenant, "channels"), body, key=key)

    def channels(self, tenant: str, *, limit: int | None = None) -> AsyncIterator[ChannelInfo]:
        return self._http.all_of(ChannelInfo, path_of(tenant, "channels"), limit=limit)

    async def channel(self, tenant: str, channel: str) -> ChannelInfo:
        return await self._http.read(ChannelInfo, path_of(tenant, "channels", channel))

    async def update_channel(
        self,
        tenant: str,
        channel: str,
        *,
        name: str | None = None,
        handle: str | None = None,
        description: str | None = None,
        access: str | None = None,
        retention_s: int | Literal["plan"] | None = None,
        **queue: Unpack[QueueOptions],
    ) -> ChannelInfo:
        """Change a channel. A `retention_s` of `plan` is the plan's maximum."""
        body = given(name=name, handle=handle, description=description, access=access, retention_s=retention_s, **queue)
        if retention_s == "plan":
            body["retention_s"] = None
        return await self._http.send(ChannelInfo, "PATCH", path_of(tenant, "channels", channel), body)

    async def delete_channel(self, tenant: str, channel: str) -> None:
        """Delete a channel with its subscriptions and messages; a queue also with the dead-letter channel made with it."""
        await self._http.remove(path_of(tenant, "channels", channel))

    def inbox(self, tenant: str, agent: str) -> PullInbox:
        """Pull and acknowledge messages of the agent of this token."""
        return PullInbox(self._http, tenant, agent)

    def history(
        self,
        tenant: str,
        channel: str,
        *,
        after: int | datetime | str | None = None,
        before: int | datetime | str | None = None,
        limit: int | None = None,
        on_gap: Callable[[Gap], None] | None = None,
    ) -> AsyncIterator[KeptMessage]:
        """List a channel's stored messages. With `after` (a sequence, or an aware time) oldest first from there; without it
        newest first, back from `before` or from the end. Text is sent unchanged.

        The missing part of the requested range is logged as a warning, or passed to `on_gap`.
        """
        query = given(after=place(after), before=place(before))

        def report(gap: replies.Gap) -> None:
            (on_gap or warn_of)(Gap(channel, gap.from_, gap.to, gap.reason))

        return self._http.all_of(KeptMessage, path_of(tenant, "channels", channel, "messages"), query, limit=limit, on_gap=report)

    async def chain(self, tenant: str, chain: str) -> ChainInfo:
        """Return a chain of answers. Raises `ChainNotFound` for one without an answer within the last day."""
        return await self._http.send(ChainInfo, "GET", path_of(tenant, "chains", chain), None)

    async def release_chain(self, tenant: str, chain: str) -> ChainInfo:
        """Let a stopped chain continue until it has used its limits once more. May be repeated: a chain that is not stopped stays
        as it is."""
        return await self._http.send(ChainInfo, "PATCH", path_of(tenant, "chains", chain), {"status": "active"})

    def audit(
        self,
        tenant: str,
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
        return self._http.all_of(AuditEntry, path_of(tenant, "audit"), query, limit=limit)

    async def usage(
        self,
        tenant: str,
        *,
        period: str | None = None,
        metric: str | None = None,
        by: Literal["agent", "channel"] | None = None,
        every: Literal["day", "hour"] | None = None,
    ) -> Usage:
        """Return what the tenant used in a period of UTC: `2026-11`, `2026-11-28` or `2026-11-28T10`; default: this month.

        `metric` selects one metric. `by` divides each metric by agent (or `usr:` and a person's sub) or channel, for a day or a
        month. `every` lists each day or hour in the period instead.
        """
        return await read_usage(self._http, tenant, given(period=period, metric=metric, by=by, every=every))

    async def recount(self, tenant: str, *, period: str | None = None) -> Recounted:
        """Count the messages in the tenant's log again, and compare them with its usage; default: this month.

        A million messages take about a minute.
        """
        return await self._http.read(Recounted, path_of(tenant, "usage", "recount"), given(period=period))
