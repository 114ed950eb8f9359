"""Routes for the agents of a tenant: register, list, read, change and delete. `rest.auth` has the login."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field, computed_field

from artcafe import errors, model
from artcafe.assembly import Services
from artcafe.rest import problems
from artcafe.rest.bodies import Items, json_body, request_schema
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import KnownTime, Listing, PageQuery, Time
from artcafe.rest.principal import AgentPath, IdempotencyKey, InTenant
from artcafe.rest.schemas import RequestModel, ResponseModel
from artcafe.rules import keys
from artcafe.rules.pages import Page, PageRequest
from artcafe.services.presence import View
from artcafe.wire.segments import tenant_path

router = APIRouter(prefix="/v1/tenants/{tenant_id}/agents", tags=["agents"])

KEYS = (errors.BadKey, errors.KeyTaken)
HANDLE = "1 to 64 of a-z, 0-9, '.', '_' and '-', first a letter or digit; unique among the tenant's agents. Stands for the id."

PUBLIC_KEY = Field(
    description="The content of a .pub file: Ed25519, ECDSA, RSA with at least 2048 bits, or a FIDO (sk-) key.",
    examples=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJkLKM6rbiRrNTC7aCk5pVAqxzYZpXvVPlVTMoBZqYqQ"],
)


class NewAgent(RequestModel):
    """An agent to register."""

    name: str = Field(description="1 to 64 characters.", examples=["Planner"])
    handle: str | None = Field(None, description=f"{HANDLE} Null: made from the name.", examples=["planner"])
    public_key: str = PUBLIC_KEY
    description: str = Field("", description="At most 1024 characters.")
    capabilities: Items[str] = Field(
        [], description="At most 32 capabilities of 1 to 64 characters each.", examples=[["plan", "summarise"]]
    )


class AgentChange(RequestModel):
    """Changes of an agent; omitted fields stay unchanged. A new status or first key ends its tokens and connections."""

    name: str = Field(default_factory=str, description="1 to 64 characters.", examples=["Planner"])
    handle: str = Field(default_factory=str, description=HANDLE, examples=["planner"])
    public_key: str = Field(default_factory=str, description=PUBLIC_KEY.description, examples=PUBLIC_KEY.examples)
    description: str = Field(default_factory=str, description="At most 1024 characters.")
    capabilities: Items[str] = Field(default_factory=list, description="The complete list, which replaces the earlier one.")
    status: model.AgentStatus = Field(default_factory=lambda: model.AgentStatus.ACTIVE)


class AgentQuery(PageQuery):
    """Filters of a list of agents."""

    status: model.AgentStatus | None = Field(None, description="Only agents with this status.")
    capability: str | None = Field(None, description="Only agents with this capability.")
    connected: bool | None = Field(None, description="Only agents that are, or are not, connected now.")


class AgentFilters(NamedTuple):
    """Filters of a list of agents; None for all."""

    status: model.AgentStatus | None = None
    capability: str | None = None
    connected: bool | None = None


class PresenceResponse(ResponseModel):
    """Whether an agent is connected to any server now. Presence is not stored; each change is delivered at most once."""

    connected: bool
    status: str | None = Field(description="The status set by the agent, until its last connection ends.", examples=["busy"])
    since: Time | None = Field(description="Time of the connection; null if the agent is not connected.")


class AgentCardResponse(ResponseModel):
    """An agent as seen by other agents."""

    id: str = Field(examples=["agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    tenant_id: str = Field(examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    handle: str | None = Field(description="May stand wherever the id stands; null for an older row.", examples=["planner"])
    name: str = Field(examples=["Planner"])
    description: str
    capabilities: list[str] = Field(examples=[["plan", "summarise"]])
    presence: PresenceResponse | None = Field(None, description="Null if unknown, because the message log is unreachable.")


class AgentResponse(AgentCardResponse):
    """An agent: a program of a tenant that logs in with an SSH key."""

    public_key: str = Field(examples=PUBLIC_KEY.examples)
    status: model.AgentStatus
    created_at: KnownTime
    updated_at: KnownTime

    @computed_field(
        description="Fingerprint of the key, as printed by ssh-keygen -l; null for a key of an older row that is refused today.",
        examples=["SHA256:uNiVztksCsDhcc0u9e8BrrQXVUpKZIDTMczCvj3tD2s"],
    )
    def fingerprint(self) -> str | None:
        return keys.fingerprint(self.public_key)


Card = TypeVar("Card", bound=AgentCardResponse)


class AgentPage(ResponseModel):
    """One page of the tenant's agents: complete for members, cards for agents."""

    items: list[AgentResponse | AgentCardResponse]
    next_cursor: str | None


def to_response_for(principal: model.Principal, agent: model.Agent, view: View | None) -> AgentResponse | AgentCardResponse:
    """Return the complete agent for members, a card for agents."""
    return _shown(AgentCardResponse if isinstance(principal, model.AgentPrincipal) else AgentResponse, agent, view)


def _shown(kind: type[Card], agent: model.Agent, view: View | None) -> Card:
    response = kind.model_validate(agent)
    if view is not None:
        response.presence = PresenceResponse.model_validate(view.of(agent.id))
    return response


def _is_connected(view: View | None, wanted: bool | None) -> Callable[[model.Agent], bool]:
    """Return the filter `connected`. Raises Unavailable if presence is unknown, because an incomplete list would be wrong."""
    if wanted is None:
        return lambda _: True
    if view is None:
        raise errors.Unavailable("presence is unknown: the message log (NATS)")
    return lambda agent: view.of(agent.id).connected is wanted


async def find(
    services: Services, principal: model.Principal, page_request: PageRequest, filters: AgentFilters
) -> tuple[Page[model.Agent], View | None]:
    """Return a page of the tenant's agents, and their presence. Raises as `Agents.list` does, and Unavailable."""
    status, capability, connected = filters
    view = None if connected is None else await services.presence.view(principal.tenant_id)
    only = _is_connected(view, connected)
    page = await services.agents.list(principal, page_request, status=status, capability=capability, only=only)
    if view is None and page.items:  # Without agents, presence is not read: that would open a connection to NATS.
        view = await services.presence.view(principal.tenant_id)
    return page, view


@router.get("", summary="List agents", responses=problems.responses(*problems.IN_TENANT, *problems.LIST))
async def list_agents(
    request: Request, services: ServicesDep, principal: InTenant, query: Annotated[AgentQuery, Query()]
) -> AgentPage:
    """List the agents of the tenant. For members, and for agents, which can find others by capability and presence."""
    listing = Listing.of(request, principal.tenant_id, query)
    filters = AgentFilters(query.status, query.capability, query.connected)
    page, view = await find(services, principal, listing.request, filters)
    return AgentPage(items=[to_response_for(principal, each, view) for each in page.items], next_cursor=listing.next_cursor(page))


@router.post(
    "",
    status_code=201,
    summary="Register an agent",
    responses=problems.responses(*problems.IN_TENANT, *KEYS, errors.HandleTaken, errors.LimitReached, *problems.POST),
    openapi_extra=request_schema(NewAgent),
)
async def create_agent(
    response: Response,
    services: ServicesDep,
    principal: InTenant,
    body: Annotated[NewAgent, Depends(json_body(NewAgent))],
    key: IdempotencyKey = None,
) -> AgentResponse:
    """Register an agent with its public key. The private key stays with the agent."""
    agent = await services.agents.create(
        principal,
        name=body.name,
        handle=body.handle,
        public_key=body.public_key,
        description=body.description,
        capabilities=body.capabilities,
        idempotency_key=key,
    )
    response.headers["Location"] = tenant_path(agent.tenant_id, "agents", agent.id)
    return _shown(AgentResponse, agent, await services.presence.view(principal.tenant_id))


@router.get("/{agent_id}", summary="Read an agent", responses=problems.responses(*problems.IN_TENANT, errors.AgentNotFound))
async def read_agent(services: ServicesDep, principal: InTenant, agent_id: AgentPath) -> AgentResponse | AgentCardResponse:
    """Return the complete agent for members, a card for agents."""
    agent = await services.agents.get(principal, agent_id)
    return to_response_for(principal, agent, await services.presence.view(principal.tenant_id))


@router.patch(
    "/{agent_id}",
    summary="Change an agent",
    responses=problems.responses(*problems.IN_TENANT, errors.AgentNotFound, *KEYS, errors.HandleTaken, *problems.BODY),
    openapi_extra=request_schema(AgentChange),
)
async def change_agent(
    services: ServicesDep, principal: InTenant, agent_id: AgentPath, body: Annotated[AgentChange, Depends(json_body(AgentChange))]
) -> AgentResponse:
    """Change the given fields. A new status or key ends the agent's tokens and connections on every server within seconds."""
    agent = await services.agents.update(principal, agent_id, **body.given())
    return _shown(AgentResponse, agent, await services.presence.view(principal.tenant_id))


@router.delete(
    "/{agent_id}",
    status_code=204,
    summary="Delete an agent",
    responses=problems.responses(*problems.IN_TENANT, errors.AgentNotFound),
)
async def delete_agent(services: ServicesDep, principal: InTenant, agent_id: AgentPath) -> None:
    """Delete the agent and its subscriptions, and end its tokens and connections."""
    await services.agents.delete(principal, agent_id)
