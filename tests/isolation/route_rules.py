"""The expected answer of every route to every kind of caller: the table of the REST isolation matrix."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from tests import ssh_keygen
from tests.rest.rest_app import RestApp


class CallerKind(StrEnum):
    """A kind of caller. The tenant is `ours`; a stranger and a foreign agent belong to another one."""

    NOBODY = "nobody"
    GARBAGE = "garbage"
    EXPIRED = "a person whose token has expired"
    EXPIRED_AGENT = "an agent whose token has expired"
    DISABLED = "an agent that was disabled since"
    DELETED = "an agent that was deleted since"
    REKEYED = "an agent that got another key since"
    TERMS_PENDING = "a member who has not accepted the terms"
    OPERATOR = "an operator of the platform, who is in no tenant"
    OPERATOR_PENDING = "an operator of the platform who has not accepted the terms"
    STRANGER = "stranger"
    INVITED = "a member of another tenant who has an open invitation here"
    FOREIGN = "foreign agent"
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"
    AGENT = "the agent that the path names"
    OTHER = "another agent"
    SUSPENDED_OWNER = "owner of a suspended tenant"
    SUSPENDED_ADMIN = "admin of a suspended tenant"
    SUSPENDED_MEMBER = "member of a suspended tenant"
    SUSPENDED_VIEWER = "viewer of a suspended tenant"
    SUSPENDED_AGENT = "agent of a suspended tenant"


AGENTS: Final = (CallerKind.AGENT, CallerKind.OTHER, CallerKind.FOREIGN, CallerKind.SUSPENDED_AGENT)
UNPROVEN: Final = {
    CallerKind.NOBODY: "unauthenticated",
    CallerKind.GARBAGE: "unauthenticated",
    CallerKind.EXPIRED: "credentials_expired",
    CallerKind.EXPIRED_AGENT: "credentials_expired",
    CallerKind.DISABLED: "revoked",
    CallerKind.DELETED: "revoked",
    CallerKind.REKEYED: "revoked",
}
"""Callers without a valid proof, and their error code."""
PENDING: Final = (CallerKind.TERMS_PENDING, CallerKind.OPERATOR_PENDING)
OUTSIDE: Final = (CallerKind.STRANGER, CallerKind.INVITED, CallerKind.FOREIGN, CallerKind.OPERATOR)
SUSPENDED: Final = {
    CallerKind.SUSPENDED_OWNER: CallerKind.OWNER,
    CallerKind.SUSPENDED_ADMIN: CallerKind.ADMIN,
    CallerKind.SUSPENDED_MEMBER: CallerKind.MEMBER,
    CallerKind.SUSPENDED_VIEWER: CallerKind.VIEWER,
    CallerKind.SUSPENDED_AGENT: CallerKind.AGENT,
}
"""Callers of the suspended tenant, and the caller with the same permissions in an active one. They name records of their own
tenant."""

OPERATOR: Final = "operator@example.com"
PENDING_OPERATOR: Final = "pending-operator@example.com"
"""The user ids of the two operators."""

Statuses = Mapping[CallerKind, int]


def within(reads: int, *, viewer: int, member: int, admin: int, owner: int, agent: int = 403, other: int = 403) -> Statuses:
    """Return the expected status for each caller of the tenant and existing records; `reads` is the success status."""
    own = {
        CallerKind.VIEWER: viewer,
        CallerKind.MEMBER: member,
        CallerKind.ADMIN: admin,
        CallerKind.OWNER: owner,
        CallerKind.AGENT: agent,
        CallerKind.OTHER: other,
    }
    assert set(own.values()) <= {reads, 403}
    return {**own, **dict.fromkeys(PENDING, 403)}


def everybody(status: int) -> Statuses:
    return dict.fromkeys(CallerKind, status)


def people(status: int) -> Statuses:
    return {**anyone_in_person(status), **dict.fromkeys(PENDING, 403)}


def anyone_in_person(status: int) -> Statuses:
    """Return the statuses of `people`, including callers who have not accepted the terms."""
    return dict.fromkeys(CallerKind, status) | dict.fromkeys(AGENTS, 403) | dict.fromkeys(UNPROVEN, 401)


def operators(status: int) -> Statuses:
    """Return the statuses of a route for operators of the platform."""
    return {**dict.fromkeys(CallerKind, 403), **dict.fromkeys(UNPROVEN, 401), CallerKind.OPERATOR: status}


def members(status: int, *, itself: bool = False, any_agent: bool = False) -> Statuses:
    """Return the statuses for every member; agents need `itself` (their own record) or `any_agent`."""
    agent, other = (status if itself or any_agent else 403), (status if any_agent else 403)
    return within(status, viewer=status, member=status, admin=status, owner=status, agent=agent, other=other)


def writers(status: int, *, itself: bool = False, any_agent: bool = False) -> Statuses:
    """Return the statuses of `members` without viewers."""
    return {**members(status, itself=itself, any_agent=any_agent), CallerKind.VIEWER: 403}


def admins(status: int) -> Statuses:
    return within(status, viewer=403, member=403, admin=status, owner=status)


@dataclass(frozen=True)
class RouteRule:
    """The expected answers of a route: the status by caller for existing records, the error code by parameter for missing ones.

    `about_agent`: an agent may call the route if the path names itself.
    """

    there: Statuses
    missing: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[RestApp], Any] | None = None
    about_agent: bool = False


def agent_body(rest_app: RestApp) -> dict[str, str]:
    return {"name": "An agent"} | key_body(rest_app)


TENANT: Final = {"tenant_id": "tenant_not_found"}
AGENT: Final = TENANT | {"agent_id": "agent_not_found"}
KEY: Final = AGENT | {"key_id": "key_not_found"}
USER: Final = TENANT | {"user_id": "member_not_found"}
CHAIN: Final = TENANT | {"chain_id": "chain_not_found"}
INVITATION: Final = TENANT | {"invitation_id": "invitation_not_found"}
CHANNEL: Final = TENANT | {"channel_id": "channel_not_found"}
MESSAGE: Final = CHANNEL | {"seq": "message_not_found"}
BOTH: Final = TENANT | {"agent_id": "agent_not_found", "channel_id": "channel_not_found"}
SUBSCRIPTION: Final = TENANT | {"agent_id": "subscription_not_found", "channel_id": "subscription_not_found"}

ITSELF: Final = {**within(200, viewer=403, member=403, admin=403, owner=403, agent=200)}
T: Final = "/v1/tenants/{tenant_id}"
K: Final = T + "/agents/{agent_id}/keys"
S: Final = T + "/channels/{channel_id}/subscriptions/{agent_id}"
WELL_KNOWN: Final = f"/.well-known/oauth-protected-resource{T}/mcp"

TABLE: Final[Mapping[str, RouteRule]] = {
    "GET /openapi.json": RouteRule(everybody(200)),
    "GET /asyncapi.json": RouteRule(everybody(200)),
    "GET /docs/errors": RouteRule(everybody(200)),
    "GET /health/live": RouteRule(everybody(200)),
    "GET /health/ready": RouteRule(everybody(200)),
    "GET /v1": RouteRule(everybody(200)),
    "GET /v1/me": RouteRule({**everybody(200), **dict.fromkeys(UNPROVEN, 401), CallerKind.SUSPENDED_AGENT: 403}),
    "POST /v1/auth/challenges": RouteRule(everybody(201), body=lambda _: {"tenant_id": "ten_x", "agent_id": "agt_x"}),
    "POST /v1/auth/tokens": RouteRule(everybody(401), body=lambda _: {"challenge_id": "chl_x", "signature": "x"}),
    "POST /v1/auth/console-codes": RouteRule(anyone_in_person(201)),
    "POST /v1/auth/console-tokens": RouteRule(everybody(401), body=lambda _: {"code": "x"}),
    "GET /console": RouteRule(everybody(200)),
    "GET /console/": RouteRule(everybody(307)),
    "GET /console/app.js": RouteRule(everybody(200)),
    "GET /console/app.css": RouteRule(everybody(200)),
    "GET /v1/terms": RouteRule(anyone_in_person(200)),
    "GET /v1/terms/acceptances": RouteRule(anyone_in_person(200)),
    "POST /v1/terms/acceptances": RouteRule(anyone_in_person(409), body=lambda _: {"version": "none"}),
    "GET /v1/operator/state": RouteRule(operators(200)),
    "GET /v1/operator/suspended-tenants": RouteRule(operators(200)),
    "GET /v1/tenants": RouteRule(people(200)),
    "POST /v1/tenants": RouteRule(people(201), body=lambda _: {"name": "A tenant"}),
    f"GET {T}": RouteRule(members(200), TENANT),
    f"PATCH {T}": RouteRule(admins(200), TENANT, lambda _: {"name": "A tenant"}),
    f"POST {T}/mcp": RouteRule(
        members(200, any_agent=True), TENANT, lambda _: {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    ),
    f"GET {WELL_KNOWN}": RouteRule(everybody(200)),
    f"GET {T}/limits": RouteRule(members(200, any_agent=True), TENANT),
    f"DELETE {T}": RouteRule(within(204, viewer=403, member=403, admin=403, owner=204), TENANT),
    f"GET {T}/members": RouteRule(admins(200), TENANT),
    f"POST {T}/members": RouteRule(admins(201), TENANT, lambda _: {"address": "bob@example.com", "role": "member"}),
    f"PATCH {T}/members/{{user_id}}": RouteRule(admins(200), USER, lambda _: {"role": "viewer"}),
    f"DELETE {T}/members/{{user_id}}": RouteRule(admins(204), USER),
    f"GET {T}/invitations": RouteRule(admins(200), TENANT),
    f"DELETE {T}/invitations/{{invitation_id}}": RouteRule(admins(204), INVITATION),
    "POST /v1/invitations/acceptances": RouteRule(people(403), body=lambda _: {"token": "x"}),
    f"GET {T}/agents": RouteRule(members(200, any_agent=True), TENANT),
    f"POST {T}/agents": RouteRule(writers(201), TENANT, agent_body),
    f"GET {T}/agents/{{agent_id}}": RouteRule(members(200, any_agent=True), AGENT),
    f"PATCH {T}/agents/{{agent_id}}": RouteRule(writers(200), AGENT, lambda _: {"name": "An agent"}),
    f"DELETE {T}/agents/{{agent_id}}": RouteRule(writers(204), AGENT),
    f"GET {T}/agents/{{agent_id}}/subscriptions": RouteRule(members(200, itself=True), AGENT, about_agent=True),
    f"GET {T}/agents/{{agent_id}}/inbox": RouteRule(ITSELF, AGENT, about_agent=True),
    f"GET {T}/agents/{{agent_id}}/inbox/stream": RouteRule(ITSELF, AGENT, about_agent=True),
    f"POST {T}/agents/{{agent_id}}/acks": RouteRule(ITSELF, AGENT, lambda _: {"acks": []}, about_agent=True),
    f"POST {T}/agents/{{agent_id}}/requests": RouteRule(writers(503, any_agent=True), AGENT, lambda _: {"data": 1}),
    f"GET {K}": RouteRule(members(200), AGENT),
    f"POST {K}": RouteRule(writers(201), AGENT, lambda rest_app: {"public_key": ssh_keygen.public_line(rest_app.key())}),
    f"GET {K}/{{key_id}}": RouteRule(members(200), KEY),
    f"PATCH {K}/{{key_id}}": RouteRule(writers(200), KEY, lambda _: {"status": "active"}),
    f"DELETE {K}/{{key_id}}": RouteRule(writers(204), KEY),
    f"GET {T}/agents/{{agent_id}}/wake": RouteRule(members(200), AGENT),
    f"PUT {T}/agents/{{agent_id}}/wake": RouteRule(writers(200), AGENT, lambda _: {"url": "https://hooks.example.com/agents"}),
    f"DELETE {T}/agents/{{agent_id}}/wake": RouteRule(writers(204), AGENT),
    f"GET {T}/channels": RouteRule(members(200, any_agent=True), TENANT),
    f"POST {T}/channels": RouteRule(writers(201), TENANT, lambda _: {"name": "A channel"}),
    f"GET {T}/channels/{{channel_id}}": RouteRule(members(200, any_agent=True), CHANNEL),
    f"PATCH {T}/channels/{{channel_id}}": RouteRule(writers(200), CHANNEL, lambda _: {"name": "A channel"}),
    f"DELETE {T}/channels/{{channel_id}}": RouteRule(writers(204), CHANNEL),
    f"GET {T}/channels/{{channel_id}}/subscriptions": RouteRule(members(200), CHANNEL),
    f"GET {T}/channels/{{channel_id}}/messages": RouteRule(members(200, any_agent=True), CHANNEL),
    f"GET {T}/channels/{{channel_id}}/messages/stream": RouteRule(members(200, any_agent=True), CHANNEL),
    f"POST {T}/channels/{{channel_id}}/messages": RouteRule(writers(201, any_agent=True), CHANNEL, lambda _: {"data": 1}),
    f"POST {T}/channels/{{channel_id}}/redrives": RouteRule(writers(200), CHANNEL, lambda _: {"all": True}),
    f"GET {T}/channels/{{channel_id}}/scheduled": RouteRule(members(200, any_agent=True), CHANNEL),
    f"DELETE {T}/channels/{{channel_id}}/scheduled/{{message_id}}": RouteRule(
        {**writers(204, itself=True), CallerKind.OTHER: 404}, CHANNEL | {"message_id": "scheduled_not_found"}
    ),
    f"GET {T}/channels/{{channel_id}}/messages/{{seq}}/receipts": RouteRule(members(200), MESSAGE),
    f"GET {T}/chains/{{chain_id}}": RouteRule(members(200), CHAIN),
    f"PATCH {T}/chains/{{chain_id}}": RouteRule(writers(200), CHAIN, lambda _: {"status": "active"}),
    f"GET {T}/audit": RouteRule(admins(200), TENANT),
    f"GET {T}/usage": RouteRule(admins(200), TENANT),
    f"GET {T}/usage/recount": RouteRule(admins(200), TENANT),
    f"GET {S}": RouteRule(members(200, itself=True), SUBSCRIPTION, about_agent=True),
    f"PUT {S}": RouteRule(writers(200, itself=True), BOTH, about_agent=True),
    f"PATCH {S}": RouteRule(writers(200, itself=True), SUBSCRIPTION, lambda _: {"status": "active"}, about_agent=True),
    f"DELETE {S}": RouteRule(writers(204, itself=True), SUBSCRIPTION, about_agent=True),
}

ABSENT: Final = {
    "tenant_id": "ten_00000000000000000000000000",
    "agent_id": "agt_00000000000000000000000000",
    "channel_id": "chn_00000000000000000000000000",
    "key_id": "key_00000000000000000000000000",
    "user_id": "nobody@example.com",
    "invitation_id": "inv_00000000000000000000000000",
    "message_id": "msg_00000000000000000000000000",
    "chain_id": "msg_00000000000000000000000000",
    "seq": "9007199254740992",
}
MALFORMED: Final = ("x", "\0", "\n", " ", "é", "#", "*", ">", "%", "?", "key#SHA256:x", "..\\..", "x" * 129, "x" * 5000)
PARAMETER: Final = re.compile(r"(?<!/oauth-protected-resource/v1/tenants/){(\w+)}")
"""A parameter that names a record: metadata of a tenant's MCP only repeats it, and is the same for all."""

MANAGED: Final[Mapping[str, tuple[Statuses, Any]]] = {
    f"GET {T}/channels/{{channel_id}}": ({**members(200, itself=True), CallerKind.OTHER: 404}, None),
    f"GET {T}/channels/{{channel_id}}/messages": ({**members(200, itself=True), CallerKind.OTHER: 404}, None),
    f"GET {T}/channels/{{channel_id}}/messages/stream": ({**members(200, itself=True), CallerKind.OTHER: 404}, None),
    f"POST {T}/channels/{{channel_id}}/messages": ({**writers(201), CallerKind.OTHER: 404}, {"data": 1}),
    f"GET {T}/channels/{{channel_id}}/scheduled": ({**members(200, itself=True), CallerKind.OTHER: 404}, None),
    f"PUT {S}": ({**writers(200)}, {"permissions": ["receive", "publish"]}),
}
"""The expected answers in a managed channel where `agent` may receive and `other` is not subscribed, and the request bodies."""


def key_body(rest_app: RestApp) -> dict[str, str]:
    return {"public_key": ssh_keygen.public_line(rest_app.key())}
