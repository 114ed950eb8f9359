"""The dependencies of routes: the services they call, and the settings of the HTTP API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from artcafe.assembly import Services
from artcafe.rules.clients import Proxies
from artcafe.rules.origins import Origins
from artcafe.rules.shared_limits import MakeBuckets
from artcafe.rules.throttle import Buckets


@dataclass(frozen=True, slots=True, kw_only=True)
class RestSettings:
    """Settings of the HTTP API."""

    version: str
    gateway_url: str
    """URL at which agents connect, such as `ws://127.0.0.1:8081/v1/connect`."""
    page_key: bytes = field(repr=False)
    """Seals the cursors of lists: 32 bytes, the same on every server of a fleet."""
    issuer: str | None = None
    """The OIDC issuer that authenticates people; None where the installation issues their tokens itself."""
    console_client_id: str | None = None
    """The console's client id at the issuer; None where the console signs nobody in there."""
    console_scope: str = "openid email"
    """The scopes that the console requests at the issuer, separated by spaces."""
    console_token_origin: str | None = None
    """The origin of the issuer's token endpoint, if it is another one than the issuer's."""
    public_url: str | None = None
    """URL at which clients reach this listener, without a path; None where it is its address or the name in each request."""
    local_url: str = "http://127.0.0.1:8080"
    """URL of this listener for clients on this machine."""
    origins: Origins = field(default_factory=Origins)
    """The web pages that may call MCP; no page may call REST."""
    proxies: Proxies = field(default_factory=Proxies)
    """Proxies trusted to name the address that a request comes from."""
    requests_per_s: float = 0.0
    """Requests per address and second, with a burst of ten seconds' worth; 0 is unlimited."""
    make_buckets: MakeBuckets = Buckets
    """Makes the buckets that count requests: of this process, or shared by several."""
    max_body_bytes: int = 256 * 1024
    """Largest body of a publish: four frames of the gateway."""
    body_deadline_s: float = 15.0
    """Seconds from a request's headers to the end of its body."""


def services_of(request: Request) -> Services:
    """Return the services of the application that serves the request."""
    return cast(Services, request.app.state.services)  # Starlette's state is untyped; `app.build` put them there.


def settings_of(request: Request) -> RestSettings:
    """Return the settings of the application that serves the request."""
    return cast(RestSettings, request.app.state.settings)  # As above.


async def _services(request: Request) -> Services:
    # A coroutine: FastAPI would send a plain function through its thread pool.
    return services_of(request)


ServicesDep = Annotated[Services, Depends(_services)]
