"""The agents of a tenant: registered, found, changed, deleted. How one logs in is `rest.auth`'s."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field, computed_field

from artcafe import errors, model
from artcafe.rest import problems
from artcafe.rest.bodies import Items, json_body, takes
from artcafe.rest.dependencies import Parts
from artcafe.rest.paging import KnownTime, Listing, PageQuery, Time
from artcafe.rest.principal import AgentPath, IdempotencyKey, InTenant
from artcafe.rest.schemas import RequestModel, ResponseModel
from artcafe.rules import keys
from artcafe.services.presence import View
from artcafe.wire.segments import tenant_path

router = APIRouter(prefix="/v1/tenants/{tenant_id}/agents", tags=["agents"])

KEYS = (errors.BadKey, errors.KeyTaken)

PUBLIC_KEY = Field(
    description="The line of a .pub file: Ed25519, ECDSA, RSA of 2048 bits or more, or a FIDO (sk-) key.",
    examples=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJkLKM6rbiRrNTC7aCk5pVAqxzYZpXvVPlVTMoBZqYqQ"],
)


class NewAgent(RequestModel):
    """An agent to register."""

    name: str = Field(description="1 to 64 characters.", examples=["Planner"])
    public_key: str = PUBLIC_KEY
    description: str = Field("", description="At most 1024 characters.")
    capabilities: Items[str] = Field([], description="At most 32, of 1 to 64 characters.", examples=[["plan", "summarise"]])


class AgentChange(RequestModel):
    """What to change of an agent; what is left out stays. Another status or first key ends its tokens and connections."""

    name: str = Field(default_factory=str, description="1 to 64 characters.", examples=["Planner"])
    public_key: str = Field(default_factory=str, description=PUBLIC_KEY.description, examples=PUBLIC_KEY.examples)
    description: str = Field(default_factory=str, description="At most 1024 characters.")
    capabilities: Items[str] = Field(default_factory=list, description="All of them, in place of those before.")
    status: model.AgentStatus = Field(default_factory=lambda: model.AgentStatus.ACTIVE)


class AgentQuery(PageQuery):
    """Which agents to list."""

    status: model.AgentStatus | None = Field(None, description="Only those with this status.")
    capability: str | None = Field(None, description="Only those that name this capability.")
    connected: bool | None = Field(None, description="Only those that are, or are not, connected now.")


class PresenceResponse(ResponseModel):
    """Whether an agent is connected now, on whichever server. Nothing of it is kept: it is told at most once."""

    connected: bool
    status: str | None = Field(description="What the agent set, until its last connection ends.", examples=["busy"])
    since: Time | None = Field(description="Since when it has been connected; null when it is not.")


class AgentCardResponse(ResponseModel):
    """What other agents see of an agent."""

    id: str = Field(examples=["agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    tenant_id: str = Field(examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    name: str = Field(examples=["Planner"])
    description: str
    capabilities: list[str] = Field(examples=[["plan", "summarise"]])
    presence: PresenceResponse | None = Field(
        None, description="Null where it is unknown, because the message log cannot be reached."
    )


class AgentResponse(AgentCardResponse):
    """A program of a tenant."""

    public_key: str = Field(examples=PUBLIC_KEY.examples)
    status: model.AgentStatus
    created_at: KnownTime
    updated_at: KnownTime

    @computed_field(
        description="The key's, as ssh-keygen -l prints it; null for an older row's key that is refused today.",
        examples=["SHA256:uNiVztksCsDhcc0u9e8BrrQXVUpKZIDTMczCvj3tD2s"],
    )
    def fingerprint(self) -> str | None:
        return keys.fingerprint(self.public_key)


Card = TypeVar("Card", bound=AgentCardResponse)


class AgentPage(ResponseModel):
    """A part of the tenant's agents: in full for members, as cards for agents."""

    items: list[AgentResponse | AgentCardResponse]
    next_cursor: str | None


def shown_to(principal: model.Principal, agent: model.Agent, view: View | None) -> AgentResponse | AgentCardResponse:
    """In full for members, as a card for other agents."""
    return _shown(AgentCardResponse if isinstance(principal, model.AgentPrincipal) else AgentResponse, agent, view)


def _shown(kind: type[Card], agent: model.Agent, view: View | None) -> Card:
    shown = kind.model_validate(agent)
    if view is not None:
        shown.presence = PresenceResponse.model_validate(view.of(agent.id))
    return shown


def _is_connected(view: View | None, wanted: bool | None) -> Callable[[model.Agent], bool]:
    """The filter `connected`. Raises Unavailable where nobody can tell: an answer without some agents would be wrong."""
    if wanted is None:
        return lambda _: True
    if view is None:
        raise errors.Unavailable("who is connected is unknown: the message log (NATS)")
    return lambda agent: view.of(agent.id).connected is wanted


@router.get("", summary="List agents", responses=problems.responses(*problems.IN_TENANT, *problems.LIST))
async def list_agents(request: Request, parts: Parts, principal: InTenant, query: Annotated[AgentQuery, Query()]) -> AgentPage:
    """An agent finds the others of its tenant with it."""
    listing = Listing.of(request, principal.tenant_id, query)
    view = None if query.connected is None else await parts.presence.view(principal.tenant_id)
    only = _is_connected(view, query.connected)
    page = await parts.agents.list(principal, listing.request, status=query.status, capability=query.capability, only=only)
    if view is None and page.items:  # where there is no agent nobody is asked: that would open a connection to NATS
        view = await parts.presence.view(principal.tenant_id)
    return AgentPage(items=[shown_to(principal, each, view) for each in page.items], next_cursor=listing.next_cursor(page))


@router.post(
    "",
    status_code=201,
    summary="Register an agent",
    responses=problems.responses(*problems.IN_TENANT, *KEYS, errors.LimitReached, *problems.POST),
    openapi_extra=takes(NewAgent),
)
async def create_agent(
    response: Response,
    parts: Parts,
    principal: InTenant,
    body: Annotated[NewAgent, Depends(json_body(NewAgent))],
    key: IdempotencyKey = None,
) -> AgentResponse:
    """The private key stays with the agent: only the public half is sent."""
    agent = await parts.agents.create(
        principal,
        name=body.name,
        public_key=body.public_key,
        description=body.description,
        capabilities=body.capabilities,
        idempotency_key=key,
    )
    response.headers["Location"] = tenant_path(agent.tenant_id, "agents", agent.id)
    return _shown(AgentResponse, agent, await parts.presence.view(principal.tenant_id))


@router.get("/{agent_id}", summary="Read an agent", responses=problems.responses(*problems.IN_TENANT, errors.AgentNotFound))
async def read_agent(parts: Parts, principal: InTenant, agent_id: AgentPath) -> AgentResponse | AgentCardResponse:
    """In full for members, as a card for agents."""
    agent = await parts.agents.get(principal, agent_id)
    return shown_to(principal, agent, await parts.presence.view(principal.tenant_id))


@router.patch(
    "/{agent_id}",
    summary="Change an agent",
    responses=problems.responses(*problems.IN_TENANT, errors.AgentNotFound, *KEYS, *problems.BODY),
    openapi_extra=takes(AgentChange),
)
async def change_agent(
    parts: Parts, principal: InTenant, agent_id: AgentPath, body: Annotated[AgentChange, Depends(json_body(AgentChange))]
) -> AgentResponse:
    """Another status or key ends the agent's tokens and connections within seconds, on every server."""
    agent = await parts.agents.update(principal, agent_id, **body.given())
    return _shown(AgentResponse, agent, await parts.presence.view(principal.tenant_id))


@router.delete(
    "/{agent_id}",
    status_code=204,
    summary="Delete an agent",
    responses=problems.responses(*problems.IN_TENANT, errors.AgentNotFound),
)
async def delete_agent(parts: Parts, principal: InTenant, agent_id: AgentPath) -> None:
    """Its subscriptions go with it, and its tokens and connections end."""
    await parts.agents.delete(principal, agent_id)
