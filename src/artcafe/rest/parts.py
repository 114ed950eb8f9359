"""What the routes are built on: the services they call and the few settings of the HTTP side. Nothing is made here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from artcafe.identity.port import Identity
from artcafe.observe.clock import Clock
from artcafe.rules.clients import Proxies
from artcafe.services.agents import Agents
from artcafe.services.audit import Audit
from artcafe.services.channels import Channels
from artcafe.services.history import History
from artcafe.services.invitations import Invitations
from artcafe.services.keys import AgentKeys
from artcafe.services.login import Login
from artcafe.services.members import Members
from artcafe.services.messaging import Messaging
from artcafe.services.presence import Presence
from artcafe.services.subscriptions import Subscriptions
from artcafe.services.tenants import Tenants
from artcafe.services.terms import Terms

Health = Callable[[], Awaitable[Mapping[str, str]]]
"""Asks every part this server needs: its name, and `ok` or a phrase that says what is wrong. Bounded in time, raises nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything a route may call. `gateway_url` is where agents connect, such as `ws://127.0.0.1:8081/v1/connect`."""

    login: Login
    tenants: Tenants
    members: Members
    invitations: Invitations
    terms: Terms
    agents: Agents
    keys: AgentKeys
    channels: Channels
    subscriptions: Subscriptions
    messaging: Messaging
    history: History
    presence: Presence
    audit: Audit
    identity: Identity
    health: Health
    clock: Clock
    gateway_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the HTTP side behaves. `page_key` seals the cursors of lists: 32 bytes, the same on every server of a fleet.

    `issuer` is who vouches for people, where that is not the installation itself. `proxies` are believed on where a request comes
    from. One address may ask `requests_per_s` times (0: as often as it likes), and ten seconds' worth at once. The body of a
    publish may have `max_body_bytes` (four frames of the gateway). A body must be here `body_deadline_s` after its headers.
    """

    version: str
    page_key: bytes = field(repr=False)
    issuer: str | None = None
    proxies: Proxies = field(default_factory=Proxies)
    requests_per_s: float = 0.0
    max_body_bytes: int = 256 * 1024
    body_deadline_s: float = 15.0


def services_of(request: Request) -> Services:
    """The services of the application that serves this request."""
    return cast(Services, request.app.state.services)  # Starlette's state is untyped; `app.build` put them there.


def settings_of(request: Request) -> Settings:
    """The settings of the application that serves this request."""
    return cast(Settings, request.app.state.settings)  # As above.


async def _parts(request: Request) -> Services:
    # A coroutine: FastAPI would send a plain function through its thread pool.
    return services_of(request)


Parts = Annotated[Services, Depends(_parts)]
