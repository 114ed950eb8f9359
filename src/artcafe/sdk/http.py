"""The HTTP side of the REST client: requests with a token, repeats, parsed responses, raised errors, followed pages.

`sdk.client` and `sdk.tenant_client` have the methods for the routes.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import httpx2
import msgspec
from httpx2 import ServerSentEvent

from artcafe import errors
from artcafe.errors import ArtcafeError
from artcafe.sdk import addresses
from artcafe.sdk.retries import Retries
from artcafe.wire import faults, replies
from artcafe.wire.segments import tenant_path

TIMEOUT_S: Final = 30.0
"""The timeout of connecting, of sending, and of waiting for the next byte. The server allows 15 s for a body, and responds
within seconds."""
PAGE: Final = 200
"""The maximum number of items in a page (contract, section 3)."""
NOTHING: Final[Mapping[str, Any]] = {}
IDEMPOTENT: Final = frozenset({"GET", "PUT", "PATCH", "DELETE"})
"""Methods whose routes may be repeated. PATCH sets fields; the calls that do more say so."""
_GATEWAY_FAILURES: Final = frozenset({502, 503, 504})
_UNCERTAIN: Final = "artcafe.uncertain"
"""The extension that marks a request of which an earlier attempt may have been processed."""
_STREAMED: Final = "artcafe.streamed"
"""The extension that marks a request with a response of events, which is read as it comes."""
SILENCE_S: Final = 30.0
"""The timeout of waiting for the next byte of a stream. The server sends a comment every 15 s (contract, section 3)."""

TokenSource = Callable[[], str | Awaitable[str]]
"""A function of the program that returns a fresh access token, or an awaitable of it."""


T = TypeVar("T")


class _Page(msgspec.Struct, Generic[T], frozen=True):
    items: list[T]
    next_cursor: str | None
    gap: replies.Gap | None = None


class _Problem(msgspec.Struct, frozen=True):
    code: str
    detail: str
    limit: replies.LimitState | None = None
    chain: str | None = None
    hops: int | None = None
    delivered: bool | None = None
    agent_code: str | None = None
    seq: int | None = None


class HttpClient:
    """Sends the requests of one platform with one token. Use it in `async with`. Repeats requests and raises as `Client` does.

    A request goes to the server that responded last; if it accepts no connection, to the next address. `token` is an access
    token, or a function that returns one. `renew`, if it is set, is called when there is no token, or the server refuses it: it
    must get another one and set `token`. `retries` returns the bounds of a new request.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        token: str | TokenSource | None,
        timeout_s: float,
        retries: Callable[[], Retries] = Retries,
    ) -> None:
        self._urls = deque(addresses.rest(url) for url in addresses.several(urls))
        self._timeout_s, self._retries = timeout_s, retries
        self.token: str | None = None
        self.renew: Callable[[], Awaitable[object]] | None = None
        if callable(token):
            self.renew = partial(self._fetch, token)
        else:
            self.token = token
        self._renewing = asyncio.Lock()
        self._client = httpx2.AsyncClient(
            base_url=self.url,
            timeout=timeout_s,
            trust_env=not all(map(addresses.is_loopback, self._urls)),  # No proxy for connections to this machine,
            verify=_verification(self._urls),  # but SSL_CERT_FILE applies to them too, as for the socket.
            headers={"Accept": "application/json"},
        )

    @property
    def url(self) -> str:
        """The address of the server that responded last."""
        return self._urls[0]

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.__aexit__(exc_type, exc, traceback)

    async def read(self, type: type[T], path: str, query: Mapping[str, str | float] | None = None) -> T:
        return self._read(type, await self._request(self._built("GET", path, params=query)))

    async def remove(self, path: str, *, absence_is_success: bool = True) -> None:
        """Delete what is at a path. With `absence_is_success`, an earlier attempt that may have deleted it counts as having done
        so, if it is absent now."""
        request = self._built("DELETE", path)
        try:
            await self._request(request)
        except errors.NotFound:
            if not (absence_is_success and _UNCERTAIN in request.extensions):
                raise

    async def send(
        self,
        type: type[T],
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        *,
        key: str | None = None,
        repeats: bool | None = None,
        wait_s: float = 0,
    ) -> T:
        """Send a request that changes something, and return the response.

        `repeats`: whether it may be processed twice; by default, whether it has a key or its method is idempotent. `wait_s` is
        the time for which the server may wait before it responds.
        """
        headers = {} if key is None else {"Idempotency-Key": key}
        request = self._built(method, path, body, headers=headers, timeout=self._timeout_s + wait_s)
        repeats = key is not None or method in IDEMPOTENT if repeats is None else repeats
        return self._read(type, await self._request(request, repeats=repeats))

    async def events(
        self, path: str, query: Mapping[str, str | float], last_id: str | None
    ) -> AsyncGenerator[ServerSentEvent, None]:
        """Open a stream of server-sent events after `last_id`, and yield them until it ends. Raises `Unavailable` if the
        connection is lost. Opening it is repeated like other requests."""
        headers = {"Accept": "text/event-stream"} | ({} if last_id is None else {"Last-Event-ID": last_id})
        timeout = httpx2.Timeout(self._timeout_s, read=SILENCE_S)
        request = self._built("GET", path, params=query, headers=headers, timeout=timeout, extensions={_STREAMED: True})
        response = await self._request(request)
        try:
            async for event in httpx2.EventSource(response):
                yield event
        except httpx2.SSEError as exc:
            raise errors.Invalid("url", f"the response of {self.url} is no stream of ArtCafe's REST API ({exc})") from exc
        except httpx2.TransportError as exc:
            raise addresses.failure(self.url, exc) from exc
        finally:
            await response.aclose()

    async def send_login(self, type: type[T], path: str, body: Mapping[str, object]) -> T:
        """Send a request of a login, without a token, once, and return the response."""
        response = await self._sent(self._built("POST", path, body), None, is_login=True)
        if not response.is_success:
            raise self._problem(response)
        return self._read(type, response)

    async def log_in(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what a login returns. It changes nothing before it succeeds, so it is begun again like any failed request."""
        retries = self._retries()
        while True:
            try:
                return await attempt()
            except errors.Unavailable as exc:
                await retries.after_failure(exc)
            except errors.RateLimited as exc:
                await retries.after_rate_limit(exc, exc.wait_s)

    def _built(self, method: str, path: str, body: Mapping[str, object] | None = None, **more: Any) -> httpx2.Request:
        """Build a request. Raises `Invalid` for text that cannot be sent: half of a surrogate pair, a key beyond ASCII."""
        try:
            if body is not None:
                more["headers"] = {"Content-Type": "application/json", **more.get("headers", {})}
                more["content"] = msgspec.json.encode(body)
            return self._client.build_request(method, path, **more)
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

    async def _request(self, request: httpx2.Request, *, repeats: bool = True) -> httpx2.Response:
        """Send a request until it succeeds, and return that response. Raises the server's error.

        One that got no connection, a 429 or a refused token has changed nothing, so it is repeated in any case, and after a lost
        response or a 502 to 504 only if it `repeats`.
        """
        retries = self._retries()
        while True:
            try:
                response = await self._renewing_request(request)
            except (errors.Unavailable, errors.OutcomeUnknown) as exc:
                if not repeats and isinstance(exc, errors.OutcomeUnknown):
                    raise
                request.extensions |= {_UNCERTAIN: True} if isinstance(exc, errors.OutcomeUnknown) else {}
                await retries.after_failure(exc)
                continue
            if response.is_success:
                return response
            await self._after_refusal(request, response, retries, repeats=repeats)

    async def _after_refusal(
        self, request: httpx2.Request, response: httpx2.Response, retries: Retries, *, repeats: bool
    ) -> None:
        """Wait until the request may be repeated. Raises the error of its response if it may not be."""
        problem, asked_s = self._problem(response), _retry_after_s(response)
        if response.status_code == httpx2.codes.TOO_MANY_REQUESTS:
            await retries.after_rate_limit(problem, asked_s)
        elif repeats and response.status_code in _GATEWAY_FAILURES:
            request.extensions |= {_UNCERTAIN: True}
            await retries.after_failure(problem, asked_s)
        elif _UNCERTAIN in request.extensions and request.method == "POST" and "Idempotency-Key" not in request.headers:
            # Such as a publish: its repeat may be refused, as after its `expires_at`, though the first attempt was stored.
            text = f"the outcome is unknown: an earlier attempt got no response, and its repeat was refused: {problem}"
            raise errors.OutcomeUnknown.from_text(text) from problem
        else:
            raise problem

    async def _renewing_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return its response; once more with a fresh token where the first was refused."""
        if self.token is None and self.renew is not None:
            await self._renew(None)
        token = self.token
        response = await self._sent(request, token)
        if self.renew is None or response.status_code != httpx2.codes.UNAUTHORIZED:
            return response
        await self._renew_after(self._problem(response), token)
        return await self._sent(request, self.token)

    async def _renew_after(self, refusal: ArtcafeError, token: str | None) -> None:
        """Get another token than one that was refused. Raises `refusal` if no other token can help.

        A token is refused not only when it has expired: an agent that was disabled for a while needs a new one, and so does a
        person whose issuer has replaced its keys.
        """
        if refusal.status != httpx2.codes.UNAUTHORIZED:  # The 401 of a proxy.
            raise refusal
        try:
            await self._renew(token)
        except (errors.BadCredentials, errors.RateLimited) as exc:
            if isinstance(refusal, errors.CredentialsExpired):
                raise
            raise refusal from exc  # It says more than the refused login, such as that the agent was revoked.

    async def _renew(self, expired: str | None) -> None:
        """Get another token than `expired`, unless another request has got it meanwhile."""
        async with self._renewing:
            if self.renew is not None and self.token == expired:
                await self.renew()

    async def _fetch(self, source: TokenSource) -> None:
        found = source()
        self.token = await found if inspect.isawaitable(found) else found

    async def _sent(self, request: httpx2.Request, token: str | None, *, is_login: bool = False) -> httpx2.Response:
        """Send a request and return its response. Exceptions of httpx2 are converted here."""
        if token is not None:
            request.headers["Authorization"] = f"Bearer {_checked(token)}"
        try:
            return await self._send(request)
        except httpx2.PoolTimeout as exc:
            raise addresses.failure(self.url, exc) from exc
        except httpx2.TransportError as exc:
            if request.method == "GET" or is_login:  # A login with a lost response has changed nothing.
                raise addresses.failure(self.url, exc) from exc
            how = "repeat it with the same key" if request.method == "POST" else "it may be repeated"
            raise errors.OutcomeUnknown.from_text(f"the outcome is unknown: {self.url} sent no response; {how}") from exc

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request to the first server that accepts a connection. The servers before it have received nothing."""
        failed: list[ArtcafeError] = []
        for url in list(self._urls):
            try:
                response = await self._response(self._at(url, request))
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as exc:
                failed.append(addresses.failure(url, exc))
            else:
                self._urls.rotate(-self._urls.index(url))
                return response
        raise addresses.failures(failed)

    async def _response(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request once, and return the complete response, or of a stream that was opened its beginning."""
        response = await self._client.send(request, stream=_STREAMED in request.extensions)
        if not response.is_success:
            await response.aread()
        return response

    def _at(self, url: str, request: httpx2.Request) -> httpx2.Request:
        """Return the same request to another server."""
        base, there = self._client.base_url, httpx2.URL(url)
        if (there.scheme, there.netloc) == (base.scheme, base.netloc):
            return request
        tail = request.url.raw_path.removeprefix(base.raw_path.rstrip(b"/"))
        moved = there.copy_with(raw_path=there.raw_path.rstrip(b"/") + tail)
        headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"host"]
        return httpx2.Request(request.method, moved, headers=headers, content=request.content, extensions=request.extensions)

    def _read(self, type: type[T], response: httpx2.Response) -> T:
        try:
            return msgspec.json.decode(response.content, type=type)
        except msgspec.DecodeError as exc:
            raise errors.Invalid("url", f"the response of {self.url} is not one of ArtCafe's REST API ({exc})") from exc

    def _problem(self, response: httpx2.Response) -> ArtcafeError:
        try:
            problem = msgspec.json.decode(response.content, type=_Problem)
        except msgspec.DecodeError:
            pass
        else:
            wait_s = _retry_after_s(response)
            about = problem.limit, problem.chain, problem.hops, wait_s, problem.delivered, problem.agent_code, problem.seq
            return faults.fault_of(problem.code, problem.detail, *about)
        status = f"HTTP {response.status_code}"
        if response.status_code in _GATEWAY_FAILURES:
            return errors.Unavailable(f"{self.url} (a proxy answered {status})")
        return errors.Invalid("url", f"{self.url} answered {status}, but not as ArtCafe does; is it the REST address?")


def _retry_after_s(response: httpx2.Response) -> float:
    """Return the seconds of `Retry-After`; 0 without one, or with a date, which ArtCafe never sends."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def path_of(tenant: str, *parts: str) -> str:
    """Return the path of a tenant or of a resource in it, for ids with any characters. Raises `Invalid` for empty and
    non-Unicode ids."""
    try:
        return tenant_path(tenant, *parts)
    except ValueError as exc:
        raise errors.Invalid("id", "must be Unicode text of at least one character") from exc


def given(**fields: object) -> dict[str, Any]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def place(given: int | datetime | str | None) -> int | str | None:
    """Encode a place in a channel: a sequence, or a time as text."""
    return given.isoformat() if isinstance(given, datetime) else given


def _verification(urls: Iterable[str]) -> ssl.SSLContext:
    """Return what verifies the servers. It reads the system's authorities, which takes 28 ms, only if an address has TLS."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if all(map(addresses.is_plain, urls)) else httpx2.create_ssl_context()


def _checked(token: str) -> str:
    """Return a token that may be a header's value. Raises `Invalid` for an empty one, as of a variable that is not set."""
    if not token or " " in token or not (token.isascii() and token.isprintable()):
        what = "has characters that no token has" if token else "is empty"
        raise errors.Invalid("token", f"{what}: pass the access token of a person or an agent")
    return token
