"""A small typed client of the REST routes: login, tenants, agents, channels, subscriptions, publishing. No sockets here."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from artcafe import errors
from artcafe.errors import ArtcafeError
from artcafe.sdk import addresses
from artcafe.sdk.keys import Signer
from artcafe.sdk.messages import Receipt
from artcafe.sdk.session import check_challenge
from artcafe.wire import frames

TIMEOUT_S: Final = 30.0
"""For each of: connecting, sending, and waiting for the next byte. The server gives a body 15 s and answers within seconds."""
PAGE: Final = 200
"""The most that a page may hold (contract, section 3)."""


class Home(msgspec.Struct, frozen=True):
    """What `GET /v1` says: where everything is."""

    name: str
    version: str
    gateway_url: str


class Token(msgspec.Struct, frozen=True):
    """What a login brings. `expires_in` counts seconds from now."""

    access_token: str
    token_type: str
    expires_in: int

    def __repr__(self) -> str:
        return f"Token(expires_in={self.expires_in})"


class Tenant(msgspec.Struct, frozen=True):
    id: str
    name: str
    plan: str
    role: str
    limits: Mapping[str, int]
    created_at: datetime
    updated_at: datetime


class AgentCard(msgspec.Struct, frozen=True):
    """An agent as its tenant's members see it; to other agents the last five are not shown."""

    id: str
    tenant_id: str
    name: str
    description: str = ""
    capabilities: tuple[str, ...] = ()
    public_key: str | None = None
    fingerprint: str | None = None
    status: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Channel(msgspec.Struct, frozen=True):
    id: str
    tenant_id: str
    name: str
    description: str
    type: str
    created_at: datetime
    updated_at: datetime


class Cursor(msgspec.Struct, frozen=True):
    epoch: str | None
    seq: int


class Subscription(msgspec.Struct, frozen=True):
    id: str
    tenant_id: str
    channel_id: str
    agent_id: str
    status: str
    cursor: Cursor
    created_at: datetime
    updated_at: datetime


class _Page(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw]
    next_cursor: str | None


class _Problem(msgspec.Struct, frozen=True):
    code: str
    detail: str


T = TypeVar("T")


class Rest:
    """The REST routes of one server, with one token. Use it in `async with`.

    Every method raises the error that the server named; `Unavailable` where it cannot be reached or answers 502 to 504 by a
    proxy, and nothing was changed; and `OutcomeUnknown` where the answer got lost, except for reading, which may just be
    repeated. Whatever makes something takes a `key`: repeated with it, it is made once.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = addresses.rest(url)
        self.token = token
        self._http = httpx.AsyncClient(
            base_url=self.url,
            timeout=timeout_s,
            trust_env=not addresses.is_loopback(self.url),
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

    async def home(self) -> Home:
        """Where everything is; needs no token."""
        return await self._get(Home, "/v1")

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

    def tenants(self) -> AsyncIterator[Tenant]:
        return self._list(Tenant, "/v1/tenants")

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

    def agents(self, tenant: str) -> AsyncIterator[AgentCard]:
        return self._list(AgentCard, _path(tenant, "agents"))

    async def create_channel(
        self,
        tenant: str,
        name: str,
        *,
        description: str = "",
        type: str = "broadcast",
        access: str = "open",
        key: str | None = None,
    ) -> Channel:
        body = {"name": name, "description": description, "type": type, "access": access}
        return await self._send(Channel, "POST", _path(tenant, "channels"), body, key=key)

    def channels(self, tenant: str) -> AsyncIterator[Channel]:
        return self._list(Channel, _path(tenant, "channels"))

    async def subscribe(self, tenant: str, channel: str, agent: str) -> Subscription:
        """Makes the agent receive the channel from here on. May be repeated: a subscription that stands stays as it is."""
        return await self._send(Subscription, "PUT", _path(tenant, "channels", channel, "subscriptions", agent), None)

    def subscriptions(self, tenant: str, channel: str) -> AsyncIterator[Subscription]:
        return self._list(Subscription, _path(tenant, "channels", channel, "subscriptions"))

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

    async def _get(self, type: type[T], path: str, query: Mapping[str, str | int] | None = None) -> T:
        return self._read(type, await self._request(self._http.build_request("GET", path, params=query)))

    async def _send(
        self, type: type[T], method: str, path: str, body: Mapping[str, object] | None, *, key: str | None = None
    ) -> T:
        request = self._http.build_request(method, path, content=None if body is None else msgspec.json.encode(body))
        if body is not None:
            request.headers["Content-Type"] = "application/json"
        if key is not None:
            request.headers["Idempotency-Key"] = key
        return self._read(type, await self._request(request))

    async def _list(self, type: type[T], path: str) -> AsyncIterator[T]:
        cursor: str | None = None
        while True:
            page = await self._get(_Page, path, {"limit": PAGE, **({"cursor": cursor} if cursor else {})})
            for item in page.items:
                yield msgspec.json.decode(item, type=type)
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
            raise errors.OutcomeUnknown.told(
                f"whether it was done is unknown: no answer came from {self.url}; with the same key it may be repeated"
            ) from exc

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


def _path(tenant: str, *parts: str) -> str:
    return "/v1/tenants/" + "/".join(quote(part, safe="") for part in (tenant, *parts))
