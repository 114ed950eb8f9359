"""Entry routes: the addresses of the service, and the current caller."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request
from pydantic import Field

from artcafe.model import AgentPrincipal, Role, UserId
from artcafe.rest import problems
from artcafe.rest.dependencies import ServicesDep, settings_of
from artcafe.rest.paging import Time
from artcafe.rest.principal import AnyCaller
from artcafe.rest.schemas import ResponseModel
from artcafe.rules.pages import each_page
from artcafe.services.tenants import Tenants
from artcafe.wire.frames import SUBPROTOCOL

router = APIRouter(tags=["home"])


class HomeResponse(ResponseModel):
    """Addresses and settings of the service."""

    name: str = Field(examples=["artcafe"])
    version: str = Field(examples=["0.1.0"])
    gateway_url: str = Field(description="The WebSocket address for agents.", examples=["ws://127.0.0.1:8081/v1/connect"])
    subprotocol: str = Field(description="The WebSocket subprotocol to request.", examples=[SUBPROTOCOL])
    issuer: str | None = Field(
        description="The OpenID Connect issuer of accepted user tokens. Null with the local identity.",
        examples=["https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI"],
    )
    console_client_id: str | None = Field(
        description="The client id of the console at the issuer. Null if it has none.", examples=["5s8k2artcafeconsole"]
    )
    console_scope: str = Field(
        description="The scopes that the console requests at the issuer, separated by spaces.", examples=["openid email"]
    )
    terms_version: str | None = Field(
        description="The version of the terms that users must accept, see `/v1/terms`. Null if there are none.",
        examples=["2026-11"],
    )
    openapi: str = Field(description="The path of the OpenAPI document.", examples=["/openapi.json"])
    asyncapi: str = Field(description="The path of the AsyncAPI document for the gateway.", examples=["/asyncapi.json"])
    time: Time = Field(description="The server's clock.")


class MyTenant(ResponseModel):
    """A tenant of the caller."""

    tenant_id: str = Field(examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    name: str = Field(examples=["Example Ltd"])
    role: Role


class OutstandingTermsResponse(ResponseModel):
    """Terms that the caller must accept with `POST /v1/terms/acceptances`."""

    version: str = Field(examples=["2026-11"])
    grace_until: Time | None = Field(
        description="Until this time, users who accepted an earlier version can continue without this one."
    )


class MeResponse(ResponseModel):
    """The current user and their tenants."""

    user_id: str = Field(examples=["alice@example.com"])
    tenants: list[MyTenant]
    terms_outstanding: OutstandingTermsResponse | None = Field(description="Null if there is nothing to accept.")
    is_operator: bool = Field(description="Whether the user may read the platform's state (`/v1/operator`).")


class MyAgent(ResponseModel):
    """The current agent and its tenant."""

    agent_id: str = Field(examples=["agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    handle: str | None = Field(description="The agent's handle; null for an older row.", examples=["planner"])
    tenant_id: str = Field(examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])


@router.get("/v1", summary="Read the service's addresses", responses=problems.responses())
async def read_home(request: Request, services: ServicesDep) -> HomeResponse:
    """Return the addresses and settings of the service. No token is required."""
    return HomeResponse(
        name="artcafe",
        version=settings_of(request).version,
        gateway_url=settings_of(request).gateway_url,
        subprotocol=SUBPROTOCOL,
        issuer=settings_of(request).issuer,
        console_client_id=settings_of(request).console_client_id,
        console_scope=settings_of(request).console_scope,
        terms_version=None if services.terms.current is None else services.terms.current.version,
        openapi="/openapi.json",
        asyncapi="/asyncapi.json",
        time=services.clock(),
    )


@router.get("/v1/me", summary="Read the current caller", responses=problems.responses(*problems.BEARER))
async def read_me(services: ServicesDep, who: AnyCaller) -> MeResponse | MyAgent:
    """Return a user's tenants with roles, or an agent's id and tenant."""
    if isinstance(who, AgentPrincipal):
        agent = await services.record_cache.find_agent(who.tenant_id, who.agent_id)
        return MyAgent(agent_id=who.agent_id, handle=None if agent is None else agent.handle, tenant_id=who.tenant_id)
    terms = await services.terms.outstanding(who)
    outstanding = None if terms is None else OutstandingTermsResponse(version=terms.version, grace_until=terms.grace_until)
    return MeResponse(
        user_id=who,
        tenants=await _tenants_of(services.tenants, who),
        terms_outstanding=outstanding,
        is_operator=services.operators.is_operator(who),
    )


async def _tenants_of(tenants: Tenants, user: UserId) -> list[MyTenant]:
    found = [each async for page in each_page(partial(tenants.list, user)) for each in page.items]
    return [MyTenant(tenant_id=each.tenant.id, name=each.tenant.name, role=each.role) for each in found]
