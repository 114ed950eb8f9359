"""The entry: where this service is, and who the caller is to it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import Field

from artcafe.model import AgentPrincipal, Role, UserId
from artcafe.rest import problems
from artcafe.rest.dependencies import Parts, settings_of
from artcafe.rest.paging import Time
from artcafe.rest.principal import AnyCaller
from artcafe.rest.schemas import ResponseModel
from artcafe.rules.pages import MAX_LIMIT, PageRequest
from artcafe.services.tenants import Tenants
from artcafe.wire.frames import SUBPROTOCOL

router = APIRouter(tags=["home"])


class HomeResponse(ResponseModel):
    """What a client needs to find the rest."""

    name: str = Field(examples=["artcafe"])
    version: str = Field(examples=["0.1.0"])
    gateway_url: str = Field(description="Where agents connect.", examples=["ws://127.0.0.1:8081/v1/connect"])
    subprotocol: str = Field(description="The WebSocket subprotocol to ask for.", examples=[SUBPROTOCOL])
    issuer: str | None = Field(
        description="Where people log in: the OpenID Connect issuer whose tokens are believed. Null with the local identity.",
        examples=["https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI"],
    )
    terms_version: str | None = Field(
        description="The terms that people must accept, at `/v1/terms`. Null where there is nothing to accept.",
        examples=["2026-11"],
    )
    openapi: str = Field(description="The path of the OpenAPI document.", examples=["/openapi.json"])
    asyncapi: str = Field(description="The path of the AsyncAPI document, of the gateway's frames.", examples=["/asyncapi.json"])
    time: Time = Field(description="The server's clock.")


class MyTenant(ResponseModel):
    """A tenant that the caller is a member of."""

    tenant_id: str = Field(examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    name: str = Field(examples=["Example Ltd"])
    role: Role


class OutstandingTermsResponse(ResponseModel):
    """Terms that the caller has still to accept, at `/v1/terms/acceptances`."""

    version: str = Field(examples=["2026-11"])
    grace_until: Time | None = Field(description="Until then, whoever accepted an earlier version goes on without this one.")


class MeResponse(ResponseModel):
    """A person, and the tenants they are in."""

    user_id: str = Field(examples=["alice@example.com"])
    tenants: list[MyTenant]
    terms_outstanding: OutstandingTermsResponse | None = Field(description="Null where there is nothing to accept.")


class MyAgent(ResponseModel):
    """An agent, and its tenant."""

    agent_id: str = Field(examples=["agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    tenant_id: str = Field(examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])


@router.get("/v1", summary="Say where everything is", responses=problems.responses())
async def read_home(request: Request, parts: Parts) -> HomeResponse:
    """Needs no token."""
    return HomeResponse(
        name="artcafe",
        version=settings_of(request).version,
        gateway_url=settings_of(request).gateway_url,
        subprotocol=SUBPROTOCOL,
        issuer=settings_of(request).issuer,
        terms_version=None if parts.terms.current is None else parts.terms.current.version,
        openapi="/openapi.json",
        asyncapi="/asyncapi.json",
        time=parts.clock(),
    )


@router.get("/v1/me", summary="Say who the caller is", responses=problems.responses(*problems.BEARER))
async def read_me(parts: Parts, who: AnyCaller) -> MeResponse | MyAgent:
    """A person gets their tenants and roles, an agent its id and tenant."""
    if isinstance(who, AgentPrincipal):
        return MyAgent(agent_id=who.agent_id, tenant_id=who.tenant_id)
    terms = await parts.terms.outstanding(who)
    outstanding = None if terms is None else OutstandingTermsResponse(version=terms.version, grace_until=terms.grace_until)
    return MeResponse(user_id=who, tenants=await _tenants_of(parts.tenants, who), terms_outstanding=outstanding)


async def _tenants_of(tenants: Tenants, user: UserId) -> list[MyTenant]:
    found: list[MyTenant] = []
    request: PageRequest | None = PageRequest(limit=MAX_LIMIT)
    while request is not None:
        page = await tenants.list(user, request)
        found += [MyTenant(tenant_id=each.tenant.id, name=each.tenant.name, role=each.role) for each in page.items]
        request = None if page.next is None else PageRequest(limit=MAX_LIMIT, after=page.next)
    return found
