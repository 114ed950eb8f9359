"""The route of a tenant's limits: its plan, and for each limit its number and what is used."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from artcafe.rest import problems
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.principal import InTenant
from artcafe.rest.problems import LimitResponse
from artcafe.rest.schemas import ResponseModel

router = APIRouter(prefix="/v1/tenants/{tenant_id}", tags=["limits"])


class LimitsResponse(ResponseModel):
    """The tenant's plan and limits."""

    plan: str = Field(description="The plan whose limits apply, where the tenant has none of its own.", examples=["free"])
    items: list[LimitResponse]


@router.get("/limits", summary="Read the tenant's limits", responses=problems.responses(*problems.IN_TENANT))
async def read_limits(services: ServicesDep, principal: InTenant) -> LimitsResponse:
    """Return the plan, and the number of each limit with what is used and left of it. For members and agents.

    `agent_subscriptions` and `agent_connections` are limits of one agent: an agent gets its own use, a member null.
    """
    limits = await services.limits.get(principal)
    return LimitsResponse(plan=limits.plan, items=[LimitResponse.model_validate(each) for each in limits.items])
