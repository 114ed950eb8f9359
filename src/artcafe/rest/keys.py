"""Routes for the keys of an agent: add, list, read, disable and revoke, for a key rotation without downtime."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field

from artcafe import errors, model
from artcafe.rest import agents, problems
from artcafe.rest.bodies import json_body, request_schema
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import KnownTime, Listing, PageQuery, Time
from artcafe.rest.principal import AgentPath, IdempotencyKey, InTenant
from artcafe.rest.schemas import RequestModel, ResponseModel
from artcafe.rules.keys import fingerprint, key_id
from artcafe.wire.segments import tenant_path

router = APIRouter(prefix="/v1/tenants/{tenant_id}/agents/{agent_id}/keys", tags=["agents"])

KeyPath = Annotated[str, Path(description="The key's id.", examples=["key_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])]
FOUND = (errors.AgentNotFound, errors.KeyNotFound)


class NewKey(RequestModel):
    """A key to add to an agent."""

    public_key: str = agents.PUBLIC_KEY
    not_after: datetime | None = Field(
        None, description="Expiry of the key, its tokens and connections; never if omitted.", examples=["2026-12-24T00:00:00Z"]
    )


class KeyChange(RequestModel):
    """Changes of a key."""

    status: model.KeyStatus = Field(description="`disabled` ends the key's tokens and connections; `active` allows logins again.")


class KeyResponse(ResponseModel):
    """The public key of an SSH key pair of an agent."""

    id: str = Field(examples=["key_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    agent_id: str = Field(examples=["agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    public_key: str = Field(examples=agents.PUBLIC_KEY.examples)
    fingerprint: str | None = Field(
        description="Fingerprint, as printed by ssh-keygen -l; null for a key of an older row that is refused today.",
        examples=["SHA256:uNiVztksCsDhcc0u9e8BrrQXVUpKZIDTMczCvj3tD2s"],
    )
    first: bool = Field(description="Whether it is the agent's first key, shown as its `public_key`.")
    status: model.KeyStatus
    added_at: KnownTime
    not_after: Time | None


class KeyPage(ResponseModel):
    """One page of the agent's keys."""

    items: list[KeyResponse]
    next_cursor: str | None


def _shown(found: tuple[model.Agent, model.AgentKey]) -> KeyResponse:
    agent, key = found
    return KeyResponse(
        id=key_id(key.line),
        agent_id=agent.id,
        public_key=key.line,
        fingerprint=fingerprint(key.line),
        first=key.line == agent.public_key,
        status=key.status,
        added_at=key.added_at,
        not_after=key.not_after,
    )


@router.get(
    "", summary="List an agent's keys", responses=problems.responses(*problems.IN_TENANT, errors.AgentNotFound, *problems.LIST)
)
async def list_keys(
    request: Request, services: ServicesDep, principal: InTenant, agent_id: AgentPath, query: Annotated[PageQuery, Query()]
) -> KeyPage:
    """List the agent's first key and up to five more."""
    listing = Listing.of(request, principal.tenant_id, query)
    page = await services.keys.list(principal, agent_id, listing.request)
    return KeyPage(items=[_shown(each) for each in page.items], next_cursor=listing.next_cursor(page))


@router.post(
    "",
    status_code=201,
    summary="Add a key to an agent",
    responses=problems.responses(*problems.IN_TENANT, errors.AgentNotFound, *agents.KEYS, errors.KeyLimit, *problems.POST),
    openapi_extra=request_schema(NewKey),
)
async def add_key(
    response: Response,
    services: ServicesDep,
    principal: InTenant,
    agent_id: AgentPath,
    body: Annotated[NewKey, Depends(json_body(NewKey))],
    key: IdempotencyKey = None,
) -> KeyResponse:
    """Add a key, which the agent can use at once. Its other keys stay valid."""
    not_after = body.not_after
    if not_after is not None and not_after.tzinfo is None:
        raise errors.Invalid("not_after", "must have a time zone, such as 2026-12-24T00:00:00Z")
    made = _shown(
        await services.keys.add(principal, agent_id, public_key=body.public_key, not_after=not_after, idempotency_key=key)
    )
    response.headers["Location"] = tenant_path(principal.tenant_id, "agents", made.agent_id, "keys", made.id)
    return made


@router.get("/{key_id}", summary="Read an agent's key", responses=problems.responses(*problems.IN_TENANT, *FOUND))
async def read_key(services: ServicesDep, principal: InTenant, agent_id: AgentPath, key_id: KeyPath) -> KeyResponse:
    """Return one of the agent's keys."""
    return _shown(await services.keys.get(principal, agent_id, key_id))


@router.patch(
    "/{key_id}",
    summary="Disable or enable an agent's key",
    responses=problems.responses(*problems.IN_TENANT, *FOUND, errors.Conflict, *problems.BODY),
    openapi_extra=request_schema(KeyChange),
)
async def change_key(
    services: ServicesDep,
    principal: InTenant,
    agent_id: AgentPath,
    key_id: KeyPath,
    body: Annotated[KeyChange, Depends(json_body(KeyChange))],
) -> KeyResponse:
    """Change the key's status.

    Disabling ends only this key's tokens and connections. If it was the first key, another one becomes the first.
    """
    return _shown(await services.keys.set_status(principal, agent_id, key_id, body.status))


@router.delete(
    "/{key_id}",
    status_code=204,
    summary="Revoke an agent's key",
    responses=problems.responses(*problems.IN_TENANT, *FOUND, errors.Conflict),
)
async def revoke_key(services: ServicesDep, principal: InTenant, agent_id: AgentPath, key_id: KeyPath) -> None:
    """Revoke the key. Its tokens and connections, and no others, end on every server within 5 seconds."""
    await services.keys.revoke(principal, agent_id, key_id)
