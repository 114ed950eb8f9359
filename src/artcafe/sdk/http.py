"""How REST routes are asked by a client: a request with its token sent, its answer read, its error raised; pages followed.

Which routes there are is `sdk.client`'s and `sdk.people`'s.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import httpx
import msgspec

from artcafe import errors
from artcafe.errors import ArtcafeError
from artcafe.sdk import addresses
from artcafe.wire import replies
from artcafe.wire.segments import tenant_path

TIMEOUT_S: Final = 30.0
"""For each of: connecting, sending, and waiting for the next byte. The server gives a body 15 s and answers within seconds."""
PAGE: Final = 200
"""The most that a page may hold (contract, section 3)."""
NOTHING: Final[Mapping[str, Any]] = {}


T = TypeVar("T")


class _Page(msgspec.Struct, Generic[T], frozen=True):
    items: list[T]
    next_cursor: str | None
    gap: replies.Gap | None = None


class _Problem(msgspec.Struct, frozen=True):
    code: str
    detail: str


class HttpClient:
    """The routes of one platform, asked with one token. Use it in `async with`. What is raised, `Client` says.

    A request goes to the server that answered last, and where it takes no connection, to the next of several. `renew`, where it
    is set, is called when the token has expired: it gets another one and sets `token`.
    """

    def __init__(self, urls: str | Sequence[str], token: str | None, timeout_s: float) -> None:
        self._urls = deque(addresses.rest(url) for url in addresses.several(urls))
        self.token = token
        self.renew: Callable[[], Awaitable[object]] | None = None
        self._renewing = asyncio.Lock()
        self._client = httpx.AsyncClient(
            base_url=self.url,
            timeout=timeout_s,
            trust_env=not all(map(addresses.is_loopback, self._urls)),  # No proxy on the way to this machine itself,
            verify=httpx.create_ssl_context(),  # but SSL_CERT_FILE counts there too, as it does for the socket.
            headers={"Accept": "application/json"},
        )

    @property
    def url(self) -> str:
        """Where the server is that answered last."""
        return self._urls[0]

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.__aexit__(exc_type, exc, traceback)

    async def read(self, type: type[T], path: str, query: Mapping[str, str | int] | None = None) -> T:
        return self._read(type, await self._request(self._built("GET", path, params=query)))

    async def remove(self, path: str) -> None:
        response = await self._request(self._built("DELETE", path))
        if not response.is_success:
            raise self._problem(response)

    async def send(
        self,
        type: type[T],
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        *,
        key: str | None = None,
        is_login: bool = False,
    ) -> T:
        """Send a request that changes something and return its answer. One that is part of a login is sent without a token."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        request = self._built(method, path, body, headers=headers)
        return self._read(type, await (self._sent(request, None, is_login=True) if is_login else self._request(request)))

    def _built(self, method: str, path: str, body: Mapping[str, object] | None = None, **more: Any) -> httpx.Request:
        """Return the request. Raises `Invalid` for text that cannot be sent: half of a surrogate pair, a key beyond ASCII."""
        try:
            return self._client.build_request(method, path, content=None if body is None else msgspec.json.encode(body), **more)
        except UnicodeEncodeError as exc:
            raise errors.Invalid("text", f"has {exc.object[exc.start]!a}, which cannot be sent in a request") from None

    async def all_of(
        self,
        type: type[T],
        path: str,
        query: Mapping[str, Any] = NOTHING,
        *,
        limit: int | None = None,
        on_gap: Callable[[replies.Gap], None] = lambda _: None,
    ) -> AsyncIterator[T]:
        cursor: str | None = None
        left = sys.maxsize if limit is None else limit
        while left > 0:
            page = await self.read(
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
        """Send a request and return its whole answer; once more with a fresh token where the first had expired.

        That answer says that nothing was done, so a change may be repeated too.
        """
        token = self.token
        response = await self._sent(request, token)
        if self.renew is None or response.status_code != httpx.codes.UNAUTHORIZED:
            return response
        if not isinstance(self._problem(response), errors.CredentialsExpired):
            return response
        async with self._renewing:
            if self.token == token:  # Else another request has renewed it meanwhile.
                await self.renew()
        return await self._sent(request, self.token)

    async def _sent(self, request: httpx.Request, token: str | None, *, is_login: bool = False) -> httpx.Response:
        """Send a request and return its whole answer. What httpx raises becomes ours here."""
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        try:
            return await self._send(request)
        except httpx.PoolTimeout as exc:
            raise addresses.failure(self.url, exc) from exc
        except httpx.TransportError as exc:
            if request.method == "GET" or is_login:  # A login whose answer got lost has changed nothing.
                raise addresses.failure(self.url, exc) from exc
            how = "with the same key it may be repeated" if request.method == "POST" else "it may be repeated"
            raise errors.OutcomeUnknown.from_text(
                f"whether it was done is unknown: no answer came from {self.url}; {how}"
            ) from exc

    async def _send(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the first server that takes a connection: nothing has been sent to those before it."""
        failed: list[ArtcafeError] = []
        for url in list(self._urls):
            try:
                response = await self._client.send(self._at(url, request))
            except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
                failed.append(addresses.failure(url, exc))
            else:
                self._urls.rotate(-self._urls.index(url))
                return response
        raise addresses.failures(failed)

    def _at(self, url: str, request: httpx.Request) -> httpx.Request:
        """The same request to this server."""
        base, there = self._client.base_url, httpx.URL(url)
        if (there.scheme, there.netloc) == (base.scheme, base.netloc):
            return request
        tail = request.url.raw_path.removeprefix(base.raw_path.rstrip(b"/"))
        moved = there.copy_with(raw_path=there.raw_path.rstrip(b"/") + tail)
        headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"host"]
        return httpx.Request(request.method, moved, headers=headers, content=request.content, extensions=request.extensions)

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


def path_of(tenant: str, *parts: str) -> str:
    """Return the path of something in a tenant, whatever characters its ids have. Raises `Invalid` for text that is no id."""
    try:
        return tenant_path(tenant, *parts)
    except ValueError as exc:
        raise errors.Invalid("id", "must be Unicode text of at least one character") from exc


def given(**fields: object) -> dict[str, Any]:
    """The fields that are not left out."""
    return {name: value for name, value in fields.items() if value is not None}


def place(given: int | datetime | str | None) -> int | str | None:
    """A place in a channel as it is sent: a sequence, or a time as text."""
    return given.isoformat() if isinstance(given, datetime) else given
