"""Routes for the wake policy of an agent: a webhook when messages wait for it while it is connected nowhere."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from artcafe import errors
from artcafe.rest import problems
from artcafe.rest.bodies import json_body, request_schema
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import Time
from artcafe.rest.principal import AgentPath, InTenant
from artcafe.rest.schemas import RequestModel, ResponseModel
from artcafe.rules.wake import DEFAULT_INTERVAL_S, MAX_INTERVAL_S
from artcafe.services.wake_policies import ShownPolicy

router = APIRouter(prefix="/v1/tenants/{tenant_id}/agents/{agent_id}/wake", tags=["agents"])

URL = "An https address; the host must have public addresses only, unless the operator allows others."
INTERVAL = f"The least seconds between two webhooks, 1 to {MAX_INTERVAL_S}: messages of that time are announced together."
QUIET = "Times of UTC between which no webhook is sent, on any day; null for none."


class NewWakePolicy(RequestModel):
    """A wake policy, which replaces the agent's earlier one."""

    url: str = Field(description=URL, examples=["https://hooks.example.com/agents/scout"])
    interval_s: int = Field(DEFAULT_INTERVAL_S, description=INTERVAL)
    quiet_hours: str | None = Field(None, description=QUIET, examples=["22:00-06:00"])
    enabled: bool = Field(True, description="False keeps the policy, and sends nothing.")
    new_secret: bool = Field(
        False, description="Make another secret. For 24 hours webhooks have a signature of the previous one, too."
    )


class WakePolicyResponse(ResponseModel):
    """The wake policy of an agent, and what became of its webhooks. `url` is null if it has none."""

    agent_id: str = Field(examples=["agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    url: str | None = Field(description=URL, examples=["https://hooks.example.com/agents/scout"])
    interval_s: int | None = Field(description=INTERVAL, examples=[60])
    quiet_hours: str | None = Field(description=QUIET, examples=["22:00-06:00"])
    enabled: bool
    problem: str | None = Field(
        description="Why the server has disabled it.", examples=["12 failed attempts, the last one: status 500"]
    )
    secret: str | None = Field(
        description="The secret of the signatures. Shown once, when it is made.",
        examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"],
    )
    sent_at: Time | None = Field(description="Time of the last webhook that was answered with success.")
    failures: int = Field(description="Failed attempts since then.")
    failure: str | None = Field(description="What the last of them met.", examples=["status 503"])


def _shown(found: ShownPolicy) -> WakePolicyResponse:
    policy, state = found.policy, found.state
    return WakePolicyResponse(
        agent_id=found.agent_id,
        url=None if policy is None else policy.url,
        interval_s=None if policy is None else policy.interval_s,
        quiet_hours=None if policy is None else policy.quiet_hours,
        enabled=policy is not None and policy.is_enabled,
        problem=None if policy is None else policy.problem,
        secret=found.secret,
        sent_at=state.sent_at,
        failures=state.failures,
        failure=state.failure,
    )


@router.get("", summary="Read an agent's wake policy", responses=problems.responses(*problems.IN_TENANT, errors.AgentNotFound))
async def read_wake_policy(services: ServicesDep, principal: InTenant, agent_id: AgentPath) -> WakePolicyResponse:
    """Return the agent's wake policy without its secret, and what became of its webhooks."""
    return _shown(await services.wake_policies.get(principal, agent_id))


@router.put(
    "",
    summary="Change an agent's wake policy",
    responses=problems.responses(*problems.IN_TENANT, errors.AgentNotFound, errors.Conflict, *problems.BODY),
    openapi_extra=request_schema(NewWakePolicy),
)
async def set_wake_policy(
    services: ServicesDep,
    principal: InTenant,
    agent_id: AgentPath,
    body: Annotated[NewWakePolicy, Depends(json_body(NewWakePolicy))],
) -> WakePolicyResponse:
    """Change the policy, or make the first one. The answer has the secret if one was made: then, or with `new_secret`."""
    return _shown(
        await services.wake_policies.put(
            principal,
            agent_id,
            url=body.url,
            interval_s=body.interval_s,
            quiet_hours=body.quiet_hours,
            enabled=body.enabled,
            new_secret=body.new_secret,
        )
    )


@router.delete(
    "",
    status_code=204,
    summary="Remove an agent's wake policy",
    responses=problems.responses(*problems.IN_TENANT, errors.AgentNotFound, errors.Conflict),
)
async def remove_wake_policy(services: ServicesDep, principal: InTenant, agent_id: AgentPath) -> None:
    """Remove the policy and its secrets. May be repeated."""
    await services.wake_policies.remove(principal, agent_id)
