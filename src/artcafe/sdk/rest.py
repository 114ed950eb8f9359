"""A typed client of the REST routes: login, tenants, agents, channels, subscriptions, messages. No sockets here; what comes back
is `sdk.records`'."""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Generic, Literal, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from artcafe import errors
from artcafe.errors import ArtcafeError
from artcafe.sdk import addresses
from artcafe.sdk.keys import Signer
from artcafe.sdk.messages import Gap, Receipt, warn_of
from artcafe.sdk.people import People
from artcafe.sdk.records import AgentCard, AgentKey, AuditEntry, Channel, Home, KeptMessage, Me, Subscription, Tenant, Token
from artcafe.sdk.session import check_challenge
from artcafe.wire import frames

TIMEOUT_S: Final = 30.0
"""For each of: connecting, sending, and waiting for the next byte. The server gives a body 15 s and answers within seconds."""
PAGE: Final = 200
"""The most that a page may hold (contract, section 3)."""
NOTHING: Final[Mapping[str, Any]] = {}


T = TypeVar("T")


class _Page(msgspec.Struct, Generic[T], frozen=True):
    items: list[T]
    next_cursor: str | None
    gap: frames.Gap | None = None


class _Problem(msgspec.Struct, frozen=True):
    code: str
    detail: str


class Rest:
    """The REST routes of one server, with one token. Use it in `async with`.

    Every method raises the error that the server named; `Unavailable` where it cannot be reached or answers 502 to 504 by a
    proxy, and nothing was changed; and `OutcomeUnknown` where the answer got lost, except for reading, which may just be
    repeated. Whatever makes something takes a `key`: repeated with it, it is made once. A list follows all pages, up to `limit`
    items where it is given. What changes something leaves alone what is None.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = addresses.rest(url)
        self.token = token
        self._http = httpx.AsyncClient(
            base_url=self.url,
            timeout=timeout_s,
            trust_env=not addresses.is_loopback(self.url),  # No proxy on the way to this machine itself,
            verify=httpx.create_ssl_context(),  # but SSL_CERT_FILE counts there too, as it does for the socket.
            headers={"Accept": "application/json"},
        )

    def __repr__(self) -> str:
        return f"Rest({self.url!r})"

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.__aexit__(exc_type, exc, traceback)

    @property
    def people(self) -> People:
        """Members, invitations and terms."""
        return People(_Routes(self))

    async def home(self) -> Home:
        """Where everything is; needs no token."""
        return await self._get(Home, "/v1")

    async def me(self) -> Me:
        """Who holds the token."""
        return await self._get(Me, "/v1/me")

    async def login(self, tenant: str, agent: str, signer: Signer) -> Token:
        """Logs an agent in by its SSH key, and uses its token from here on.

        Raises `BadCredentials`, `ChallengeRefused` and `KeyUnusable`.
        """
        posed = await self._send(frames.ChallengeReply, "POST", "/v1/auth/challenges", {"tenant_id": tenant, "agent_id": agent})
        check_challenge(posed.challenge, posed.challenge_id, tenant, agent)
        signature = await signer.sign(posed.challenge)
        proof = {"challenge_id": posed.challenge_id, "signature": signature}
        token = await self._send(Token, "POST", "/v1/auth/tokens", proof)
        self.token = token.access_token
        return token

    async def create_tenant(self, name: str, *, key: str | None = None) -> Tenant:
        return await self._send(Tenant, "POST", "/v1/tenants", {"name": name}, key=key)

    def tenants(self, *, limit: int | None = None) -> AsyncIterator[Tenant]:
        return self._list(Tenant, "/v1/tenants", limit=limit)

    async def tenant(self, tenant: str) -> Tenant:
        return await self._get(Tenant, _path(tenant))

    async def rename_tenant(self, tenant: str, name: str) -> Tenant:
        return await self._send(Tenant, "PATCH", _path(tenant), {"name": name})

    async def delete_tenant(self, tenant: str) -> None:
        """Deletes a tenant with everything in it."""
        await self._delete(_path(tenant))

    async def create_agent(
        self,
        tenant: str,
        name: str,
        public_key: str,
        *,
        description: str = "",
        capabilities: Sequence[str] = (),
        key: str | None = None,
    ) -> AgentCard:
        """Registers an agent; `public_key` is the line of its `.pub` file."""
        body = {"name": name, "public_key": public_key, "description": description, "capabilities": list(capabilities)}
        return await self._send(AgentCard, "POST", _path(tenant, "agents"), body, key=key)

    def agents(
        self,
        tenant: str,
        *,
        status: str | None = None,
        capability: str | None = None,
        connected: bool | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[AgentCard]:
        query = _given(status=status, capability=capability, connected=connected)
        return self._list(AgentCard, _path(tenant, "agents"), query, limit=limit)

    async def agent(self, tenant: str, agent: str) -> AgentCard:
        return await self._get(AgentCard, _path(tenant, "agents", agent))

    async def update_agent(
        self,
        tenant: str,
        agent: str,
        *,
        name: str | None = None,
        public_key: str | None = None,
        description: str | None = None,
        capabilities: Sequence[str] | None = None,
        status: str | None = None,
    ) -> AgentCard:
        """Another key or status (`active`, `disabled`) ends the agent's tokens and connections."""
        body = _given(name=name, public_key=public_key, description=description, capabilities=capabilities, status=status)
        return await self._send(AgentCard, "PATCH", _path(tenant, "agents", agent), body)

    async def delete_agent(self, tenant: str, agent: str) -> None:
        """Deletes an agent with its subscriptions; its tokens and connections end."""
        await self._delete(_path(tenant, "agents", agent))

    async def add_key(
        self, tenant: str, agent: str, public_key: str, *, not_after: datetime | None = None, key: str | None = None
    ) -> AgentKey:
        """Lets the agent log in with one more key, perhaps only until `not_after`. It may have five beside its first one."""
        body = {"public_key": public_key, **_given(not_after=place(not_after))}
        return await self._send(AgentKey, "POST", _path(tenant, "agents", agent, "keys"), body, key=key)

    def keys(self, tenant: str, agent: str, *, limit: int | None = None) -> AsyncIterator[AgentKey]:
        """The agent's keys, its first one among them."""
        return self._list(AgentKey, _path(tenant, "agents", agent, "keys"), limit=limit)

    async def update_key(self, tenant: str, agent: str, id: str, *, status: str) -> AgentKey:
        """`disabled` ends the tokens and connections that the key opened, and no others; `active` lets it log in again."""
        return await self._send(AgentKey, "PATCH", _path(tenant, "agents", agent, "keys", id), {"status": status})

    async def revoke_key(self, tenant: str, agent: str, id: str) -> None:
        """Takes a key from the agent; the tokens and connections that it opened end, and no others."""
        await self._delete(_path(tenant, "agents", agent, "keys", id))

    async def create_channel(
        self,
        tenant: str,
        name: str,
        *,
        description: str = "",
        type: str = "broadcast",
        access: str = "open",
        retention_s: int | None = None,
        key: str | None = None,
    ) -> Channel:
        """`retention_s`: for how many seconds a message is kept, up to what the plan has; None is as long as that."""
        body = {"name": name, "description": description, "type": type, "access": access, **_given(retention_s=retention_s)}
        return await self._send(Channel, "POST", _path(tenant, "channels"), body, key=key)

    def channels(self, tenant: str, *, limit: int | None = None) -> AsyncIterator[Channel]:
        return self._list(Channel, _path(tenant, "channels"), limit=limit)

    async def channel(self, tenant: str, channel: str) -> Channel:
        return await self._get(Channel, _path(tenant, "channels", channel))

    async def update_channel(
        self,
        tenant: str,
        channel: str,
        *,
        name: str | None = None,
        description: str | None = None,
        access: str | None = None,
        retention_s: int | Literal["plan"] | None = None,
    ) -> Channel:
        """A `retention_s` of `plan` keeps messages as long as that has it."""
        body = _given(name=name, description=description, access=access, retention_s=retention_s)
        if retention_s == "plan":
            body["retention_s"] = None
        return await self._send(Channel, "PATCH", _path(tenant, "channels", channel), body)

    async def delete_channel(self, tenant: str, channel: str) -> None:
        """Deletes a channel with its subscriptions and messages."""
        await self._delete(_path(tenant, "channels", channel))

    async def subscribe(self, tenant: str, channel: str, agent: str, *, permissions: Sequence[str] | None = None) -> Subscription:
        """Makes the agent receive the channel from here on. May be repeated: a subscription that stands stays as it is, but for
        the permissions (`receive`, `publish`, for a managed channel) where they are given."""
        body = _given(permissions=permissions) or None
        return await self._send(Subscription, "PUT", _subscription(tenant, channel, agent), body)

    def subscriptions(self, tenant: str, channel: str, *, limit: int | None = None) -> AsyncIterator[Subscription]:
        """Who receives the channel."""
        return self._list(Subscription, _path(tenant, "channels", channel, "subscriptions"), limit=limit)

    def agent_subscriptions(self, tenant: str, agent: str, *, limit: int | None = None) -> AsyncIterator[Subscription]:
        """What the agent receives."""
        return self._list(Subscription, _path(tenant, "agents", agent, "subscriptions"), limit=limit)

    async def subscription(self, tenant: str, channel: str, agent: str) -> Subscription:
        return await self._get(Subscription, _subscription(tenant, channel, agent))

    async def update_subscription(self, tenant: str, channel: str, agent: str, *, status: str) -> Subscription:
        """`paused` ends delivery and keeps the cursor, `active` goes on from it."""
        return await self._send(Subscription, "PATCH", _subscription(tenant, channel, agent), {"status": status})

    async def delete_subscription(self, tenant: str, channel: str, agent: str) -> None:
        """Ends a subscription and forgets its cursor."""
        await self._delete(_subscription(tenant, channel, agent))

    async def publish(
        self,
        tenant: str,
        channel: str,
        data: object,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
    ) -> Receipt:
        """Stores a message; on disk when this returns. `data` is whatever msgspec writes as JSON."""
        body = {"data": data, "key": key or uuid.uuid4().hex, "headers": headers, "reply_to": reply_to}
        found = await self._send(frames.PublishReply, "POST", _path(tenant, "channels", channel, "messages"), body)
        return Receipt(found.seq, found.message_id, found.duplicate)

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
        """What the channel keeps. With `after` (a sequence, or an aware time) oldest first from there; without it newest first,
        back from `before` or from the end. A text is passed on as it is.

        What is gone of what was asked for is logged as a warning, or told to `on_gap`.
        """
        query = _given(after=place(after), before=place(before))

        def told(gap: frames.Gap) -> None:
            (on_gap or warn_of)(Gap(channel, gap.from_, gap.to, gap.reason))

        return self._list(KeptMessage, _path(tenant, "channels", channel, "messages"), query, limit=limit, on_gap=told)

    def audit(self, tenant: str, *, oldest_first: bool = False, limit: int | None = None) -> AsyncIterator[AuditEntry]:
        """Who did what in the tenant, newest first unless asked otherwise."""
        order = "oldest" if oldest_first else "newest"
        return self._list(AuditEntry, _path(tenant, "audit"), {"order": order}, limit=limit)

    async def _get(self, type: type[T], path: str, query: Mapping[str, str | int] | None = None) -> T:
        return self._read(type, await self._request(self._http.build_request("GET", path, params=query)))

    async def _delete(self, path: str) -> None:
        response = await self._request(self._http.build_request("DELETE", path))
        if not response.is_success:
            raise self._problem(response)

    async def _send(
        self, type: type[T], method: str, path: str, body: Mapping[str, object] | None, *, key: str | None = None
    ) -> T:
        request = self._http.build_request(method, path, content=None if body is None else msgspec.json.encode(body))
        if body is not None:
            request.headers["Content-Type"] = "application/json"
        if key is not None:
            request.headers["Idempotency-Key"] = key
        return self._read(type, await self._request(request))

    async def _list(
        self,
        type: type[T],
        path: str,
        query: Mapping[str, Any] = NOTHING,
        *,
        limit: int | None = None,
        on_gap: Callable[[frames.Gap], None] = lambda _: None,
    ) -> AsyncIterator[T]:
        cursor: str | None = None
        left = sys.maxsize if limit is None else limit
        while left > 0:
            page = await self._get(
                _Page[type],  # type: ignore[valid-type]  # msgspec takes a generic struct with its parameter filled in
                path,
                {**query, "limit": min(PAGE, left), **({"cursor": cursor} if cursor else {})},
            )
            if page.gap is not None:
                on_gap(page.gap)
            for item in page.items:
                yield item
            left -= len(page.items)
            if (cursor := page.next_cursor) is None:
                return

    async def _request(self, request: httpx.Request) -> httpx.Response:
        """Sends it and brings the whole answer; what httpx raises becomes ours here."""
        if self.token is not None:
            request.headers["Authorization"] = f"Bearer {self.token}"
        try:
            return await self._http.send(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            raise addresses.failure(self.url, exc) from exc
        except httpx.TransportError as exc:
            if request.method == "GET":
                raise addresses.failure(self.url, exc) from exc
            how = "with the same key it may be repeated" if request.method == "POST" else "it may be repeated"
            raise errors.OutcomeUnknown.told(f"whether it was done is unknown: no answer came from {self.url}; {how}") from exc

    def _read(self, type: type[T], response: httpx.Response) -> T:
        if not response.is_success:
            raise self._problem(response)
        try:
            return msgspec.json.decode(response.content, type=type)
        except msgspec.DecodeError as exc:
            raise errors.Invalid("url", f"what answers at {self.url} is not ArtCafe's REST address ({exc})") from exc

    def _problem(self, response: httpx.Response) -> ArtcafeError:
        try:
            problem = msgspec.json.decode(response.content, type=_Problem)
        except msgspec.DecodeError:
            pass
        else:
            return errors.from_wire(problem.code, problem.detail)
        status = f"HTTP {response.status_code}"
        if response.status_code in {502, 503, 504}:
            return errors.Unavailable(f"{self.url} (a proxy answered {status})")
        return errors.Invalid("url", f"{self.url} answered {status}, and not as ArtCafe does; is it the REST address?")


class _Routes:
    """What `sdk.people` asks by."""

    def __init__(self, rest: Rest) -> None:
        self.read, self.send, self.remove, self.all_of = rest._get, rest._send, rest._delete, rest._list
        self.path_of = _path


def _path(tenant: str, *parts: str) -> str:
    """Raises `Invalid` for an id that is none: in a path it would name something else, such as the tenant that `..` stands in."""
    for part in (tenant, *parts):
        if part in {"", ".", ".."}:
            raise errors.Invalid("id", f"{part!r} is no id")
    return "/v1/tenants/" + "/".join(quote(part, safe="") for part in (tenant, *parts))


def _subscription(tenant: str, channel: str, agent: str) -> str:
    return _path(tenant, "channels", channel, "subscriptions", agent)


def _given(**fields: object) -> dict[str, Any]:
    """The fields that are not left out."""
    return {name: value for name, value in fields.items() if value is not None}


def place(given: int | datetime | str | None) -> int | str | None:
    """A place in a channel as it is sent: a sequence, or a time as text."""
    return given.isoformat() if isinstance(given, datetime) else given
