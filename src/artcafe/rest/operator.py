"""Routes for operators of the platform: its state, and the suspended tenants. They read, and reveal no tenant's content."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from artcafe import errors
from artcafe.fabric.nats.server_states import NatsServer, NatsState
from artcafe.model import UserId
from artcafe.rest import problems
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import Listing, PageQuery, Time
from artcafe.rest.principal import AnyCaller
from artcafe.rest.schemas import ResponseModel
from artcafe.services.platform_state import FleetServer, State
from artcafe.services.readiness import OK

router = APIRouter(prefix="/v1/operator", tags=["operator"])


class FleetServerResponse(ResponseModel):
    """A server process of the fleet. Null is unknown: the process did not answer."""

    id: str = Field(description="Its name since its start.", examples=["9f86d081884c7d65"])
    state: Literal["up", "silent"] = Field(
        description="`silent`: not heard for 2.5 s and more, so it was killed or is cut off. After 10 minutes it is left out."
    )
    heard_at: Time = Field(description="When it was last heard.")
    host: str | None = Field(description="The name of its machine or container.", examples=["artcafe-1"])
    version: str | None = Field(examples=["0.1.0"])
    process: int | None = Field(description="Its number among the processes behind the same listeners, from 1 on.", examples=[1])
    processes: int | None = Field(description="The number of those processes (PROCESSES).", examples=[4])
    started_at: Time | None
    connections: int | None = Field(description="Open connections to both listeners.", examples=[1042])
    sessions: int | None = Field(description="Sockets and streams of agents and people.", examples=[1031])


class NatsServerResponse(ResponseModel):
    """A NATS server. Null is unknown, or has no meaning: `is_current`, `lag` and `contact_s` are the leader's view of another."""

    name: str = Field(examples=["nats-1"])
    answers: bool = Field(description="False: it did not answer within 1 s, and is known from the leader.")
    host: str | None
    version: str | None = Field(examples=["2.15.1"])
    started_at: Time | None
    connections: int | None
    jetstream: bool | None
    streams: int | None = Field(description="Streams that it has a copy of.")
    messages: int | None = Field(description="Messages in its copies.")
    stored_bytes: int | None = Field(description="Bytes of its copies.")
    is_leader: bool | None = Field(description="Whether it leads the cluster's JetStream. Null for a single server.")
    is_current: bool | None = Field(description="Whether it has what the leader has.")
    lag: int | None = Field(description="Operations that it is behind the leader.")
    contact_s: float | None = Field(description="Seconds since the leader heard it.")


class NatsResponse(ResponseModel):
    """NATS, as this server reaches it."""

    is_connected: bool
    problem: str | None = Field(description="Why there is no connection. Null with one, or if it is unknown.")
    cluster: str | None = Field(description="The cluster's name. Null for a single server, or unknown.")
    size: int | None = Field(description="Servers with JetStream in the cluster, also those that are down. Null: unknown.")
    leader: str | None = Field(description="The name of the server that leads JetStream. Null for a single server, or unknown.")
    servers: list[NatsServerResponse] | None = Field(description="Null: unknown, since none answered.")


class DependencyResponse(ResponseModel):
    """Something that this server needs."""

    name: str = Field(examples=["tables"])
    is_ready: bool
    problem: str | None = Field(description="Null if it is ready.")


class PlatformStateResponse(ResponseModel):
    """The state of the platform, as one server sees it."""

    time: Time
    server: str = Field(description="The id of the server process that answers.", examples=["9f86d081884c7d65"])
    servers: list[FleetServerResponse] = Field(description="The server that answers comes first.")
    is_complete: bool = Field(description="False: NATS cannot be reached, so that other servers may be missing in the list.")
    nats: NatsResponse
    readiness: list[DependencyResponse] = Field(description="What the server that answers needs, as in `/health/ready`.")


class SuspendedTenantResponse(ResponseModel):
    """A suspended tenant, by its id."""

    id: str = Field(examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    plan: str = Field(examples=["free"])
    suspended_at: Time | None = Field(description="When `artcafe suspend` suspended it. Null if its row was changed otherwise.")
    created_at: Time | None = Field(description="Null for a record of an older system without a readable time.")


class SuspendedTenantPage(ResponseModel):
    """One page of the suspended tenants. It may be empty and have a `next_cursor`."""

    items: list[SuspendedTenantResponse]
    next_cursor: str | None


async def operator(request: Request, services: ServicesDep, who: AnyCaller) -> UserId:
    """Return the operator who calls. Raises Forbidden for others, which the platform's audit counts, and TermsRequired."""
    return await services.operators.admit(who, f"{request.method} {request.scope['path']}")


Operator = Annotated[UserId, Depends(operator)]
FOR_OPERATORS = (*problems.BEARER, errors.Forbidden, errors.TermsRequired)


@router.get("/state", summary="Read the state of the platform", responses=problems.responses(*FOR_OPERATORS))
async def read_platform_state(services: ServicesDep, _user: Operator) -> PlatformStateResponse:
    """Return the servers of the fleet, the NATS servers, and whether this server's dependencies are ready. For operators.

    What does not answer within 2 s is null, never zero.
    """
    return _state_response(await services.platform_state.get())


@router.get("/suspended-tenants", summary="List suspended tenants", responses=problems.responses(*FOR_OPERATORS, *problems.LIST))
async def list_suspended_tenants(
    request: Request, services: ServicesDep, user: Operator, query: Annotated[PageQuery, Query()]
) -> SuspendedTenantPage:
    """List the suspended tenants, in no order. For operators.

    A page reads at most 1,000 rows of the tenants' table, which AWS charges for with tables on DynamoDB.
    """
    listing = Listing.of(request, f"usr:{user}", query)
    page = await services.platform_state.suspended_tenants(listing.request)
    items = [SuspendedTenantResponse.model_validate(each) for each in page.items]
    return SuspendedTenantPage(items=items, next_cursor=listing.next_cursor(page))


def _state_response(state: State) -> PlatformStateResponse:
    return PlatformStateResponse(
        time=state.time,
        server=state.server,
        servers=[_server_response(each) for each in state.servers],
        is_complete=state.is_complete,
        nats=_nats_response(state),
        readiness=[
            DependencyResponse(name=name, is_ready=text == OK, problem=None if text == OK else text)
            for name, text in state.readiness.items()
        ],
    )


def _server_response(server: FleetServer) -> FleetServerResponse:
    report = server.report
    return FleetServerResponse(
        id=report.server,
        state="silent" if server.is_silent else "up",
        heard_at=server.heard_at,
        host=report.host,
        version=report.version,
        process=report.process,
        processes=report.processes,
        started_at=report.started_at,
        connections=report.connections,
        sessions=report.sessions,
    )


def _nats_response(state: State) -> NatsResponse:
    nats: NatsState | None = state.nats
    servers: list[NatsServer] | None = None if nats is None else nats.servers
    return NatsResponse(
        is_connected=state.is_nats_connected,
        problem=state.nats_problem,
        cluster=None if nats is None else nats.cluster,
        size=None if nats is None else nats.size,
        leader=None if nats is None else nats.leader,
        servers=None if servers is None else [NatsServerResponse.model_validate(each) for each in servers],
    )
