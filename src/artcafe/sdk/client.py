"""The public class `Client`, a typed client of the REST API for people, administrators and agents.

`sdk.tenant_client` has the calls inside a tenant, `sdk.http` sends the requests, `sdk.records` has the types of the responses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from artcafe.sdk.deprecated_calls import deprecated_call
from artcafe.sdk.http import TIMEOUT_S, HttpClient, TokenSource, given
from artcafe.sdk.keys import Signer, load_signer
from artcafe.sdk.operator_records import PlatformState, SuspendedTenant
from artcafe.sdk.outbox import MAX_RATE_WAIT_S
from artcafe.sdk.records import CurrentTerms, Home, Me, TenantInfo, TermsAcceptance
from artcafe.sdk.rest_login import log_in
from artcafe.sdk.retries import MAX_RETRY_S, Retries
from artcafe.sdk.tenant_client import TenantClient
from artcafe.sdk.token_records import ConsoleCode, Token

_ACCEPTANCES: Final = "/v1/terms/acceptances"


class Client:
    """A client of a platform's REST API with one token. Use it in `async with`.

        async with Client("https://artcafe.example.com", fetch_token) as client:
            acme = client.tenant("ten_…")
            await acme.channels.create("news")
            async for agent in acme.agents.list(connected=True):
                print(agent.handle)

    `url` may be several addresses of the platform, in a sequence or separated by commas: if one accepts no connection, the
    request goes to the next. `token` is an access token, or a function, also a coroutine function, that returns a fresh one, such
    as from an OpenID Connect refresh: it is called before the first request, and when the server refuses the token (401).

    `tenant` has the calls inside one tenant. Every call raises the server's error; `Unavailable` if the server cannot be reached
    or a proxy responds with 502 to 504; and `OutcomeUnknown` if the response to a change was lost. Before that, a call is
    repeated with back-off, for at most `max_retry_s` in all, if it got no connection; after a lost response or a 502 to 504
    only if it may be done twice: a read, a deletion, a change to given values, and whatever has a `key`. With 0 it never is.
    Calls that create something accept a `key`: calls with one key create it once. Lists follow all pages, up to `limit` items if
    it is given. Updates skip arguments of None.

    A request above a rate limit (429) is repeated after the time that the server gives, for at most `max_rate_wait_s` in all;
    then it raises `RateExceeded` or `RateLimited`. With 0 it never waits.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        token: str | TokenSource | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        max_retry_s: float = MAX_RETRY_S,
        max_rate_wait_s: float = MAX_RATE_WAIT_S,
    ) -> None:
        self._http = HttpClient(url, token, timeout_s, partial(Retries, max_retry_s, max_rate_wait_s))

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
        """The access token of every request; None before the first. Setting it ends the renewal."""
        return self._http.token

    @token.setter
    def token(self, token: str | None) -> None:
        self._http.token, self._http.renew = token, None

    async def home(self) -> Home:
        """Return the platform's addresses; needs no token."""
        return await self._http.read(Home, "/v1")

    async def me(self) -> Me:
        """Return the principal of the token."""
        return await self._http.read(Me, "/v1/me")

    async def create_console_code(self) -> ConsoleCode:
        """Return a code that signs the caller in to the web console once, within 60 seconds: `{url}/console#code={code}`.

        Only where the server has the local identity: raises `Conflict` if people log in at an issuer.
        """
        return await self._http.send(ConsoleCode, "POST", "/v1/auth/console-codes", {}, repeats=True)

    async def login(self, tenant: str, agent: str, key: Signer | str | Path, *, service: str | None = None) -> Token:
        """Log an agent in by its SSH key, and use its token from now on. One that is refused (401) is renewed by another login.

        `key` is a signer, the path of a private key, or the path of a `.pub` file whose private half ssh-agent holds. `service`
        is the only service to log in to; without it, the service of this login is required from now on. Setting `token` ends the
        renewal. Raises `BadCredentials`, `ChallengeRefused` and `KeyUnusable`; a later request raises them too if it has to log
        in again.
        """
        signer = load_signer(key) if isinstance(key, str | Path) else key
        token, service = await self._http.log_in(partial(log_in, self._http, tenant, agent, signer, service))
        self._http.renew = partial(log_in, self._http, tenant, agent, signer, service)
        return token

    async def create_tenant(self, name: str, *, key: str | None = None) -> TenantInfo:
        return await self._http.send(TenantInfo, "POST", "/v1/tenants", {"name": name}, key=key)

    def tenants(self, *, limit: int | None = None) -> AsyncIterator[TenantInfo]:
        return self._http.all_of(TenantInfo, "/v1/tenants", limit=limit)

    def tenant(self, tenant: str) -> TenantClient:
        """Return the calls inside a tenant, by its id. Sends nothing."""
        return TenantClient(self._http, tenant)

    async def accept_invitation(self, token: str, *, id_token: str | None = None) -> TenantInfo:
        """Join the tenant of an invitation. `id_token` is the identity provider's proof of the address. May be repeated."""
        body = {"token": token, **given(id_token=id_token)}
        return await self._http.send(TenantInfo, "POST", "/v1/invitations/acceptances", body, repeats=True)

    async def terms(self) -> CurrentTerms:
        return await self._http.read(CurrentTerms, "/v1/terms")

    async def accept_terms(self, version: str) -> TermsAcceptance:
        """Accept a version of the terms. May be repeated. Raises `TermsChanged` if it is not the current version."""
        return await self._http.send(TermsAcceptance, "POST", _ACCEPTANCES, {"version": version}, repeats=True)

    def acceptances(self, *, limit: int | None = None) -> AsyncIterator[TermsAcceptance]:
        """List the caller's own acceptances of terms."""
        return self._http.all_of(TermsAcceptance, _ACCEPTANCES, limit=limit)

    async def platform_state(self) -> PlatformState:
        """Return the servers of the fleet, NATS, and whether the server that answers is ready. For operators of the platform."""
        return await self._http.read(PlatformState, "/v1/operator/state")

    def suspended_tenants(self, *, limit: int | None = None) -> AsyncIterator[SuspendedTenant]:
        """List the suspended tenants, in no order. For operators of the platform; it reads the rows of all tenants."""
        return self._http.all_of(SuspendedTenant, "/v1/operator/suspended-tenants", limit=limit)

    async def live(self) -> None:
        """Return if the server that is asked runs. Needs no token."""
        await self._http.read(dict[str, str], "/health/live")

    async def ready(self) -> Mapping[str, str]:
        """Return the state of each thing that the server depends on. Raises `Unavailable` with those that are down. Needs no
        token."""
        return await self._http.read(dict[str, str], "/health/ready")

    if not TYPE_CHECKING:  # A type checker that saw this method would accept any name.

        def __getattr__(self, name: str) -> Any:
            """Return a method by its earlier name, with a DeprecationWarning."""
            return deprecated_call(self, name)
