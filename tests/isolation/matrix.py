"""Tenant isolation of REST as one table: routes × kinds of callers × existing, foreign, unknown and malformed ids.

A route missing in the table fails `test_matrix`, so every new route declares its permissions; `test_mutations` proves that the
table detects missing checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote

import httpx

from artcafe.model import AgentId, AgentPrincipal, Member, Role, TenantId, UserId
from artcafe.observe.clock import now
from tests import ssh_keygen
from tests.rest.house import Agent, Caller, House, Tenant


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
OUTSIDE: Final = (CallerKind.STRANGER, CallerKind.INVITED, CallerKind.FOREIGN)
SUSPENDED: Final = {
    CallerKind.SUSPENDED_OWNER: CallerKind.OWNER,
    CallerKind.SUSPENDED_ADMIN: CallerKind.ADMIN,
    CallerKind.SUSPENDED_MEMBER: CallerKind.MEMBER,
    CallerKind.SUSPENDED_VIEWER: CallerKind.VIEWER,
    CallerKind.SUSPENDED_AGENT: CallerKind.AGENT,
}
"""Callers of the suspended tenant, and the caller with the same permissions in an active one. They name records of their own
tenant."""

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
    return {**own, CallerKind.TERMS_PENDING: 403}


def everybody(status: int) -> Statuses:
    return dict.fromkeys(CallerKind, status)


def people(status: int) -> Statuses:
    return {**anyone_in_person(status), CallerKind.TERMS_PENDING: 403}


def anyone_in_person(status: int) -> Statuses:
    """Return the statuses of `people`, including callers who have not accepted the terms."""
    return dict.fromkeys(CallerKind, status) | dict.fromkeys(AGENTS, 403) | dict.fromkeys(UNPROVEN, 401)


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
class TenantRecords:
    """The records of one tenant."""

    tenant: Tenant
    agent: Agent
    channel: str
    key: str
    managed: str
    """A managed channel with a receiving permission for the agent."""
    other: Agent
    """An agent without a subscription."""
    user: str
    invitation: str

    def ids(self) -> dict[str, str]:
        """Return the value of each path parameter."""
        return {
            "tenant_id": self.tenant.id,
            "agent_id": self.agent.id,
            "channel_id": self.channel,
            "key_id": self.key,
            "user_id": self.user,
            "invitation_id": self.invitation,
        }


@dataclass(frozen=True)
class RouteRule:
    """The expected answers of a route: the status by caller for existing records, the error code by parameter for missing ones.

    `about_agent`: an agent may call the route if the path names itself.
    """

    there: Statuses
    missing: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[House], Any] | None = None
    about_agent: bool = False


def agent_body(house: House) -> dict[str, str]:
    return {"name": "An agent"} | key_body(house)


TENANT: Final = {"tenant_id": "tenant_not_found"}
AGENT: Final = TENANT | {"agent_id": "agent_not_found"}
KEY: Final = AGENT | {"key_id": "key_not_found"}
USER: Final = TENANT | {"user_id": "member_not_found"}
INVITATION: Final = TENANT | {"invitation_id": "invitation_not_found"}
CHANNEL: Final = TENANT | {"channel_id": "channel_not_found"}
BOTH: Final = TENANT | {"agent_id": "agent_not_found", "channel_id": "channel_not_found"}
SUBSCRIPTION: Final = TENANT | {"agent_id": "subscription_not_found", "channel_id": "subscription_not_found"}

T: Final = "/v1/tenants/{tenant_id}"
K: Final = T + "/agents/{agent_id}/keys"
S: Final = T + "/channels/{channel_id}/subscriptions/{agent_id}"

TABLE: Final[Mapping[str, RouteRule]] = {
    "GET /openapi.json": RouteRule(everybody(200)),
    "GET /asyncapi.json": RouteRule(everybody(200)),
    "GET /health/live": RouteRule(everybody(200)),
    "GET /health/ready": RouteRule(everybody(200)),
    "GET /v1": RouteRule(everybody(200)),
    "GET /v1/me": RouteRule({**everybody(200), **dict.fromkeys(UNPROVEN, 401), CallerKind.SUSPENDED_AGENT: 403}),
    "POST /v1/auth/challenges": RouteRule(everybody(201), body=lambda _: {"tenant_id": "ten_x", "agent_id": "agt_x"}),
    "POST /v1/auth/tokens": RouteRule(everybody(401), body=lambda _: {"challenge_id": "chl_x", "signature": "x"}),
    "GET /v1/terms": RouteRule(anyone_in_person(200)),
    "GET /v1/terms/acceptances": RouteRule(anyone_in_person(200)),
    "POST /v1/terms/acceptances": RouteRule(anyone_in_person(409), body=lambda _: {"version": "none"}),
    "GET /v1/tenants": RouteRule(people(200)),
    "POST /v1/tenants": RouteRule(people(201), body=lambda _: {"name": "A tenant"}),
    f"GET {T}": RouteRule(members(200), TENANT),
    f"PATCH {T}": RouteRule(admins(200), TENANT, lambda _: {"name": "A tenant"}),
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
    f"GET {K}": RouteRule(members(200), AGENT),
    f"POST {K}": RouteRule(writers(201), AGENT, lambda house: {"public_key": ssh_keygen.public_line(house.key())}),
    f"GET {K}/{{key_id}}": RouteRule(members(200), KEY),
    f"PATCH {K}/{{key_id}}": RouteRule(writers(200), KEY, lambda _: {"status": "active"}),
    f"DELETE {K}/{{key_id}}": RouteRule(writers(204), KEY),
    f"GET {T}/channels": RouteRule(members(200), TENANT),
    f"POST {T}/channels": RouteRule(writers(201), TENANT, lambda _: {"name": "A channel"}),
    f"GET {T}/channels/{{channel_id}}": RouteRule(members(200), CHANNEL),
    f"PATCH {T}/channels/{{channel_id}}": RouteRule(writers(200), CHANNEL, lambda _: {"name": "A channel"}),
    f"DELETE {T}/channels/{{channel_id}}": RouteRule(writers(204), CHANNEL),
    f"GET {T}/channels/{{channel_id}}/subscriptions": RouteRule(members(200), CHANNEL),
    f"GET {T}/channels/{{channel_id}}/messages": RouteRule(members(200, any_agent=True), CHANNEL),
    f"POST {T}/channels/{{channel_id}}/messages": RouteRule(writers(201, any_agent=True), CHANNEL, lambda _: {"data": 1}),
    f"GET {T}/audit": RouteRule(admins(200), TENANT),
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
}
MALFORMED: Final = ("x", "\0", "\n", " ", "é", "#", "*", ">", "%", "?", "key#SHA256:x", "..\\..", "x" * 129, "x" * 5000)
PARAMETER: Final = re.compile(r"{(\w+)}")


MANAGED: Final[Mapping[str, tuple[Statuses, Any]]] = {
    f"GET {T}/channels/{{channel_id}}/messages": ({**members(200, itself=True)}, None),
    f"POST {T}/channels/{{channel_id}}/messages": ({**writers(201)}, {"data": 1}),
    f"PUT {S}": ({**writers(200)}, {"permissions": ["receive", "publish"]}),
}
"""The expected answers in a managed channel, where `agent` may receive and `other` has no permission, and the request bodies."""

OUR_CANARY: Final = "canary-of-ours"
THEIR_CANARY: Final = "canary-of-theirs"
SUSPENDED_CANARY: Final = "canary-of-the-suspended"
"""Contained in all names, descriptions and messages of each tenant, and must not be visible to the others."""


def create_matrix(house: House) -> Matrix:
    """Create three tenants, one of them suspended, and every kind of caller."""
    ours, theirs, halted = (create_tenant(house, canary) for canary in (OUR_CANARY, THEIR_CANARY, SUSPENDED_CANARY))
    everybody = callers(house, ours, theirs) | suspended_callers(halted)
    open_invitation = halted.tenant.invite("late@example.com")["token"]
    house.suspend(halted.tenant.id)
    before = {CallerKind.STRANGER: snapshot(theirs), CallerKind.SUSPENDED_OWNER: snapshot(halted, but="messages")}
    return Matrix(house, ours, theirs, halted, everybody, open_invitation, before)


def suspended_callers(halted: TenantRecords) -> dict[CallerKind, Caller]:
    """Return the callers of a tenant that is suspended afterwards."""
    tenant = halted.tenant
    return {
        CallerKind.SUSPENDED_OWNER: tenant.owner,
        CallerKind.SUSPENDED_ADMIN: tenant.member(Role.ADMIN),
        CallerKind.SUSPENDED_MEMBER: tenant.member(Role.MEMBER),
        CallerKind.SUSPENDED_VIEWER: tenant.member(Role.VIEWER),
        CallerKind.SUSPENDED_AGENT: halted.agent.login(),
    }


def invited(ours: TenantRecords, theirs: TenantRecords) -> Caller:
    """Return a member of theirs with an open invitation into ours."""
    caller = theirs.tenant.member(Role.ADMIN)
    ours.tenant.invite(caller.get("/v1/me").json()["user_id"], Role.OWNER)
    return caller


def callers(house: House, ours: TenantRecords, theirs: TenantRecords) -> dict[CallerKind, Caller]:
    return {
        CallerKind.NOBODY: house.client(),
        CallerKind.GARBAGE: house.client("eyJhbGciOiJub25lIn0.e30."),
        CallerKind.EXPIRED: house.client(house.identity.issue("late@example.com", now() - timedelta(days=30))),
        CallerKind.EXPIRED_AGENT: house.client(house.tokens.mint(principal_of(ours.agent), now() - timedelta(hours=1))),
        CallerKind.DISABLED: withdrawn(ours, lambda agent: agent.tenant.owner.patch(agent.path, json={"status": "disabled"})),
        CallerKind.DELETED: withdrawn(ours, lambda agent: agent.tenant.owner.delete(agent.path)),
        CallerKind.REKEYED: withdrawn(ours, lambda agent: agent.tenant.owner.patch(agent.path, json=key_body(house))),
        CallerKind.TERMS_PENDING: terms_pending(ours),
        CallerKind.STRANGER: theirs.tenant.owner,
        CallerKind.INVITED: invited(ours, theirs),
        CallerKind.FOREIGN: theirs.agent.login(),
        CallerKind.OWNER: ours.tenant.owner,
        CallerKind.ADMIN: ours.tenant.member(Role.ADMIN),
        CallerKind.MEMBER: ours.tenant.member(Role.MEMBER),
        CallerKind.VIEWER: ours.tenant.member(Role.VIEWER),
        CallerKind.AGENT: ours.agent.login(),
        CallerKind.OTHER: ours.other.login(),
    }


def create_tenant(house: House, canary: str) -> TenantRecords:
    tenant = house.tenant()
    assert tenant.owner.patch(tenant.path, json={"name": canary}).status_code == 200
    words = {"name": canary, "description": canary}
    agent = tenant.agent(**words, capabilities=[canary])
    managed = tenant.channel(**words, access="managed")
    user = tenant.member(Role.VIEWER, canary).get("/v1/me").json()["user_id"]
    invitation = tenant.invite(f"{canary}@example.com")["id"]
    world = TenantRecords(tenant, agent, tenant.channel(**words), agent.another_key(), managed, tenant.agent(), user, invitation)
    for channel in (world.channel, world.managed):
        tenant.subscribed(channel, world.agent)
    published = tenant.owner.post(f"{tenant.path}/channels/{world.channel}/messages", json={"data": canary})
    assert published.status_code == 201, published.text
    return world


def terms_pending(world: TenantRecords) -> Caller:
    """Return a member who has not accepted the current terms."""
    house, tenant_id = world.tenant.house, TenantId(world.tenant.id)
    member = Member(user_id=UserId("terms_pending@example.com"), tenant_id=tenant_id, role=Role.OWNER, joined_at=now())
    house.run(house.store.transact(house.store.people(tenant_id).insert_member(member)))
    return house.user(member.user_id, accepts=False)


def snapshot(world: TenantRecords, *, but: str = "nothing") -> dict[str, Any]:
    """Return everything an owner can read, except the parts ending with `but` and those changed by reading."""
    tenant = world.tenant
    parts = (
        "",
        "/members",
        "/invitations",
        "/agents",
        "/channels",
        *(f"/channels/{world.channel}/{part}" for part in ("subscriptions", "messages")),
    )
    return {part: tenant.owner.get(f"{tenant.path}{part}").json() for part in parts if not part.endswith(but)}


def principal_of(agent: Agent) -> AgentPrincipal:
    return AgentPrincipal(agent_id=AgentId(agent.id), tenant_id=TenantId(agent.tenant.id), epoch=0)


def withdrawn(world: TenantRecords, change: Callable[[Agent], httpx.Response]) -> Caller:
    """Return an agent that logged in before a change revoked its token."""
    agent = world.tenant.agent()
    caller = agent.login()
    assert change(agent).is_success
    return caller


def key_body(house: House) -> dict[str, str]:
    return {"public_key": ssh_keygen.public_line(house.key())}


def disposable_ids(route: str, world: TenantRecords) -> dict[str, str]:
    """Return the path parameters of a disposable record, for a route that removes it."""
    tenant, ids = world.tenant, world.ids()
    if route == f"DELETE {T}":
        return {"tenant_id": tenant.owner.post("/v1/tenants", json={"name": "A disposable_ids"}).json()["id"]}
    if route.endswith("/members/{user_id}"):
        return ids | {"user_id": tenant.member(Role.VIEWER).get("/v1/me").json()["user_id"]}
    if route.endswith("/invitations/{invitation_id}"):
        return ids | {"invitation_id": tenant.invite("disposable_ids@example.com")["id"]}
    if route.endswith("/agents/{agent_id}"):
        return ids | {"agent_id": tenant.agent().id}
    if route.endswith("/keys/{key_id}"):
        agent = tenant.agent()
        return ids | {"agent_id": agent.id, "key_id": agent.another_key()}
    channel = tenant.channel()
    if route == f"DELETE {S}":
        tenant.subscribed(channel, world.agent)
    return ids | {"channel_id": channel}


def comparable(answer: httpx.Response) -> tuple[int, str, dict[str, str]]:
    """Return the comparable parts of an answer, without its date and request id."""
    own = answer.headers["x-request-id"]
    headers = {name: value for name, value in answer.headers.items() if name not in {"date", "x-request-id"}}
    return answer.status_code, answer.text.replace(own, ""), headers


def elsewhere(ours: TenantRecords, theirs: TenantRecords, parameter: str, who: CallerKind) -> Iterator[dict[str, str]]:
    """Yield path parameters with one foreign, unknown or malformed id.

    A foreign tenant's id is also combined with its own records.
    """
    for id in (theirs.ids()[parameter], ABSENT[parameter], *(MALFORMED if who is CallerKind.OWNER else MALFORMED[:2])):
        yield ours.ids() | {parameter: id}
    if parameter == "tenant_id":
        yield theirs.ids()


def expected_there(route: str, who: CallerKind) -> tuple[int, str | None]:
    """Return the expected status, and the error code if the status is ambiguous."""
    line, is_in_tenant = TABLE[route], PARAMETER.search(route)
    if is_in_tenant and who in UNPROVEN:
        return 401, UNPROVEN[who]
    if is_in_tenant and who in SUSPENDED:
        return while_suspended(route, who) or (line.there[SUSPENDED[who]], None)
    if who is CallerKind.SUSPENDED_AGENT and line.there[who] == 403:
        return 403, "tenant_suspended"
    return line.there[who], None


def while_suspended(route: str, who: CallerKind) -> tuple[int, str] | None:
    """Return the answer specific to a caller of a suspended tenant; None if it is the same as in an active one."""
    if who is CallerKind.SUSPENDED_AGENT:
        return 403, "tenant_suspended"
    if TABLE[route].there[SUSPENDED[who]] == 403:
        return 403, "forbidden"
    is_read = route.startswith("GET ") and not route.endswith("/messages")
    return None if is_read else (403, "tenant_suspended")


def expected_elsewhere(route: str, who: CallerKind, parameter: str) -> tuple[int, str]:
    line = TABLE[route]
    if who in UNPROVEN:
        return 401, UNPROVEN[who]
    if who in SUSPENDED:
        is_out = parameter == "tenant_id" and who is not CallerKind.SUSPENDED_AGENT
        answered = None if is_out else while_suspended(route, who)
        return answered or (404, line.missing[parameter])
    if who is CallerKind.TERMS_PENDING:
        return 403, "terms_required"
    if parameter == "tenant_id":
        return 404, line.missing[parameter]
    if line.there[who] == 403 or (line.about_agent and parameter == "agent_id" and who in AGENTS):
        return 403, "forbidden"
    return 404, line.missing[parameter]


@dataclass(frozen=True)
class Matrix:
    """The cells of the table; each raises AssertionError if the server answers differently."""

    house: House
    ours: TenantRecords
    theirs: TenantRecords
    halted: TenantRecords
    """The suspended tenant."""
    callers: Mapping[CallerKind, Caller]
    late: str
    """The token of an invitation into the suspended tenant, for `late@example.com`."""
    before: Mapping[CallerKind, dict[str, Any]]

    def there(self, route: str, who: CallerKind) -> None:
        """Check the answer for existing records."""
        expected, code = expected_there(route, who)
        ids = self.halted.ids() if who in SUSPENDED else disposable_ids(route, self.ours) if expected == 204 else self.ours.ids()
        answer = self.send(who, route, ids, self.body_of(route))
        assert answer.status_code == expected, answer.text
        assert code is None or answer.json()["code"] == code

    def logging_in(self) -> None:
        """Check logins of agents: refused while the tenant is suspended."""
        for agent, expected in ((self.ours.agent, 200), (self.halted.agent, 403)):
            answer = agent.prove(agent.challenge())
            assert answer.status_code == expected, answer.text
        assert answer.json()["code"] == "tenant_suspended"

    def joining(self) -> None:
        """Check accepting an invitation: refused while the tenant is suspended."""
        answer = self.house.user("late@example.com").post("/v1/invitations/acceptances", json={"token": self.late})
        assert (answer.status_code, answer.json()["code"]) == (403, "tenant_suspended")

    def managed(self, route: str, who: CallerKind) -> None:
        """Check the answer in a managed channel."""
        statuses, body = MANAGED[route]
        answer = self.send(who, route, self.ours.ids() | {"channel_id": self.ours.managed}, body)
        assert answer.status_code == statuses[who], answer.text

    def entering(self, who: CallerKind) -> None:
        """Check subscribing an agent to a managed channel; agents try it for themselves."""
        agent = (
            self.ours.other
            if who is CallerKind.OTHER
            else self.ours.tenant.agent()
            if who is not CallerKind.AGENT
            else self.ours.agent
        )
        channel = self.ours.tenant.channel(access="managed")
        ids = self.ours.ids() | {"channel_id": channel, "agent_id": agent.id}
        answer = self.send(who, f"PUT {S}", ids, None)
        assert answer.status_code == (403 if who in (CallerKind.VIEWER, *AGENTS) else 201), answer.text

    def owning(self, who: CallerKind) -> None:
        """Check granting the owner role, by an invitation and by a role change, and removing an owner."""
        owner = self.ours.tenant.member(Role.OWNER).get("/v1/me").json()["user_id"]
        viewer = self.ours.tenant.member(Role.VIEWER).get("/v1/me").json()["user_id"]
        invited = self.send(who, f"POST {T}/members", self.ours.ids(), {"address": "o@example.com", "role": "owner"})
        made = self.send(who, f"PATCH {T}/members/{{user_id}}", self.ours.ids() | {"user_id": viewer}, {"role": "owner"})
        removed = self.send(who, f"DELETE {T}/members/{{user_id}}", self.ours.ids() | {"user_id": owner}, None)
        found = (invited.status_code, made.status_code, removed.status_code)
        assert found == ((201, 200, 204) if who is CallerKind.OWNER else (403, 403, 403))

    def elsewhere(self, route: str, parameter: str, who: CallerKind) -> None:
        """Check that a foreign, an unknown and a malformed id in one path parameter get equal answers."""
        body = self.body_of(route)
        home = self.halted if who in SUSPENDED else self.ours
        answers = [self.send(who, route, ids, body) for ids in elsewhere(home, self.theirs, parameter, who)]
        found = [comparable(answer) for answer in answers]
        assert found == [found[0]] * len(found)
        assert (answers[0].status_code, answers[0].json()["code"]) == expected_elsewhere(route, who, parameter)

    def outside(self, route: str, who: CallerKind) -> None:
        """Check that a caller from outside gets equal answers for any id."""
        body = self.body_of(route)
        paths = [self.ours.ids(), ABSENT, *(ABSENT | {"tenant_id": id} for id in MALFORMED)]
        found = [comparable(self.send(who, route, ids, body)) for ids in paths]
        assert found == [found[0]] * len(found)
        assert found[0][0] == 404
        assert '"tenant_not_found"' in found[0][1]

    def send(self, who: CallerKind, route: str, ids: Mapping[str, str], body: Any) -> httpx.Response:
        """Send a request and check that the answer contains no record of another tenant than the caller's."""
        method, template = route.split()
        path = template.format_map({name: quote(id, safe="") for name, id in ids.items()})
        answer = self.callers[who].request(method, path, json=body)
        own = SUSPENDED_CANARY if who in SUSPENDED else THEIR_CANARY if who in OUTSIDE else OUR_CANARY
        assert not any(canary in answer.text for canary in (OUR_CANARY, THEIR_CANARY, SUSPENDED_CANARY) if canary != own)
        return answer

    def body_of(self, route: str) -> Any:
        make = TABLE[route].body
        return None if make is None else make(self.house)


THERE: Final = [(route, who) for route in TABLE for who in CallerKind if who not in OUTSIDE or not PARAMETER.search(route)]
WRONG_IDS: Final = [
    (route, name, who) for route in TABLE for name in PARAMETER.findall(route) for who in CallerKind if who not in OUTSIDE
]
OWN: Final = [CallerKind.OWNER, CallerKind.ADMIN, CallerKind.MEMBER, CallerKind.VIEWER, CallerKind.AGENT, CallerKind.OTHER]
IN_MANAGED: Final = [(route, who) for route in MANAGED for who in OWN]
FROM_OUTSIDE: Final = [(route, who) for route in TABLE if PARAMETER.search(route) for who in OUTSIDE]
