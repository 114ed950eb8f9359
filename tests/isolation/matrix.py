"""Tenant isolation of REST as one table: routes × kinds of callers × existing, foreign, unknown and malformed ids.

A route missing in the table fails `test_matrix`, so every new route declares its permissions; `test_mutations` proves that the
table detects missing checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

import httpx2

from artcafe.errors import LoopStopped
from artcafe.model import AgentId, AgentPrincipal, ChannelId, Member, Role, TenantId, UserId, UserPrincipal
from artcafe.observe.clock import now
from tests.isolation.route_rules import (
    ABSENT,
    AGENTS,
    ITSELF,
    MALFORMED,
    MANAGED,
    OPERATOR,
    OUTSIDE,
    PARAMETER,
    PENDING,
    PENDING_OPERATOR,
    SUSPENDED,
    TABLE,
    UNPROVEN,
    CallerKind,
    S,
    T,
    key_body,
)
from tests.rest.rest_app import Agent, Caller, RestApp, Tenant


@dataclass(frozen=True)
class TenantRecords:
    """The records of one tenant."""

    tenant: Tenant
    agent: Agent
    channel: str
    key: str
    managed: str
    """A managed channel with a receiving permission for the agent."""
    managed_handle: str
    other: Agent
    """An agent without a subscription."""
    user: str
    invitation: str
    chain: str
    """A stopped chain of two messages."""
    scheduled: str
    """A message that the agent has scheduled in the channel."""
    seq: str
    """The sequence of its first message, in `channel`."""
    inbox_seq: str
    """The sequence of a message that the owner has sent to the agent's inbox."""
    agent_handle: str
    channel_handle: str

    def ids(self) -> dict[str, str]:
        """Return the value of each path parameter."""
        return {
            "tenant_id": self.tenant.id,
            "agent_id": self.agent.id,
            "channel_id": self.channel,
            "key_id": self.key,
            "user_id": self.user,
            "invitation_id": self.invitation,
            "chain_id": self.chain,
            "message_id": self.scheduled,
            "seq": self.seq,
        }

    def handles(self) -> dict[str, str]:
        """Return the handle for each path parameter that may have one."""
        return {"agent_id": self.agent_handle, "channel_id": self.channel_handle}


OUR_CANARY: Final = "canary-of-ours"
THEIR_CANARY: Final = "canary-of-theirs"
SUSPENDED_CANARY: Final = "canary-of-the-suspended"
"""Contained in all names, descriptions and messages of each tenant, and must not be visible to the others."""


def create_matrix(rest_app: RestApp) -> Matrix:
    """Create three tenants, one of them suspended, and every kind of caller."""
    ours, theirs, halted = (create_tenant(rest_app, canary) for canary in (OUR_CANARY, THEIR_CANARY, SUSPENDED_CANARY))
    everybody = callers(rest_app, ours, theirs) | suspended_callers(halted)
    open_invitation = halted.tenant.invite("late@example.com")["token"]
    rest_app.suspend(halted.tenant.id)
    before = {CallerKind.STRANGER: snapshot(theirs), CallerKind.SUSPENDED_OWNER: snapshot(halted, but="messages")}
    return Matrix(rest_app, ours, theirs, halted, everybody, open_invitation, before)


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


def callers(rest_app: RestApp, ours: TenantRecords, theirs: TenantRecords) -> dict[CallerKind, Caller]:
    return {
        CallerKind.NOBODY: rest_app.client(),
        CallerKind.GARBAGE: rest_app.client("eyJhbGciOiJub25lIn0.e30."),
        CallerKind.EXPIRED: rest_app.client(rest_app.identity.issue("late@example.com", now() - timedelta(days=30))),
        CallerKind.EXPIRED_AGENT: rest_app.client(rest_app.tokens.mint(principal_of(ours.agent), now() - timedelta(hours=1))),
        CallerKind.DISABLED: withdrawn(ours, lambda agent: agent.tenant.owner.patch(agent.path, json={"status": "disabled"})),
        CallerKind.DELETED: withdrawn(ours, lambda agent: agent.tenant.owner.delete(agent.path)),
        CallerKind.REKEYED: withdrawn(ours, lambda agent: agent.tenant.owner.patch(agent.path, json=key_body(rest_app))),
        CallerKind.TERMS_PENDING: terms_pending(ours),
        CallerKind.OPERATOR: rest_app.user(OPERATOR),
        CallerKind.OPERATOR_PENDING: rest_app.user(PENDING_OPERATOR, accepts=False),
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


def create_tenant(rest_app: RestApp, canary: str) -> TenantRecords:
    tenant = rest_app.tenant()
    assert tenant.owner.patch(tenant.path, json={"name": canary}).status_code == 200
    words = {"name": canary, "description": canary}
    agent = tenant.agent(**words, capabilities=[canary])
    managed = tenant.channel(**words, access="managed", handle="hidden")
    user = tenant.member(Role.VIEWER, canary).get("/v1/me").json()["user_id"]
    invitation = tenant.invite(f"{canary}@example.com")["id"]
    channel = tenant.channel(**words)
    tenant.channel(**words, type="queue", dead_letter=channel)  # So that the channel can have dead letters.
    (chain, seq), late = stopped_chain(tenant, channel, canary), scheduled_message(agent, channel, canary)
    direct = inbox_message(agent, canary)
    key, other = agent.another_key(), tenant.agent()
    handles = [tenant.owner.get(path).json()["handle"] for path in (agent.path, f"{tenant.path}/channels/{channel}")]
    channels = channel, key, managed, "hidden"
    world = TenantRecords(tenant, agent, *channels, other, user, invitation, chain, late, seq, direct, *handles)
    for each in (world.channel, world.managed):
        tenant.subscribed(each, world.agent)
    return world


def stopped_chain(tenant: Tenant, channel: str, data: str) -> tuple[str, str]:
    """Publish a message and its answer, stop the chain, and return its id and the first message's sequence."""
    path, rest_app = f"{tenant.path}/channels/{channel}/messages", tenant.rest_app
    published = tenant.owner.post(path, json={"data": data})
    assert published.status_code == 201, published.text
    first = published.json()
    answered = tenant.owner.post(path, json={"data": data, "caused_by": {"channel": channel, "seq": first["seq"]}})
    assert answered.status_code == 201, answered.text
    chain = str(first["message_id"])
    person = tenant.owner.get("/v1/me").json()["user_id"]
    owner = UserPrincipal(user_id=UserId(person), tenant_id=TenantId(tenant.id), role=Role.OWNER)
    stopped = LoopStopped("hops", 1, 2, chain=chain, hops=2)
    rest_app.run(rest_app.services.loop_guard.record_stop(owner, ChannelId(channel), stopped))
    return chain, str(first["seq"])


def inbox_message(agent: Agent, data: str) -> str:
    """Send a message to the agent's inbox as the owner, and return its sequence."""
    answer = agent.tenant.owner.post(f"{agent.tenant.path}/channels/@{agent.id}/messages", json={"data": data})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["seq"])


def scheduled_message(agent: Agent, channel: str, data: str) -> str:
    """Schedule a message as the agent, and return its id."""
    body = {"data": data, "deliver_at": (now() + timedelta(days=20)).isoformat()}
    answer = agent.login().post(f"{agent.tenant.path}/channels/{channel}/messages", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["message_id"])


def terms_pending(world: TenantRecords) -> Caller:
    """Return a member who has not accepted the current terms."""
    rest_app, tenant_id = world.tenant.rest_app, TenantId(world.tenant.id)
    member = Member(user_id=UserId("terms_pending@example.com"), tenant_id=tenant_id, role=Role.OWNER, joined_at=now())
    rest_app.run(rest_app.store.transact(rest_app.store.people(tenant_id).insert_member(member)))
    return rest_app.user(member.user_id, accepts=False)


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


def withdrawn(world: TenantRecords, change: Callable[[Agent], httpx2.Response]) -> Caller:
    """Return an agent that logged in before a change revoked its token."""
    agent = world.tenant.agent()
    caller = agent.login()
    assert change(agent).is_success
    return caller


def disposable_ids(route: str, world: TenantRecords) -> dict[str, str]:
    """Return the path parameters of a disposable record, for a route that removes it."""
    tenant, ids = world.tenant, world.ids()
    if route == f"DELETE {T}":
        return {"tenant_id": tenant.owner.post("/v1/tenants", json={"name": "A disposable tenant"}).json()["id"]}
    if route.endswith("/members/{user_id}"):
        return ids | {"user_id": tenant.member(Role.VIEWER).get("/v1/me").json()["user_id"]}
    if route.endswith("/invitations/{invitation_id}"):
        return ids | {"invitation_id": tenant.invite("disposable@example.com")["id"]}
    if route.endswith(("/agents/{agent_id}", "/wake")):
        return ids | {"agent_id": tenant.agent().id}
    if route.endswith("/keys/{key_id}"):
        agent = tenant.agent()
        return ids | {"agent_id": agent.id, "key_id": agent.another_key()}
    if route.endswith("/scheduled/{message_id}"):
        return ids | {"message_id": scheduled_message(world.agent, world.channel, "disposable")}
    channel = tenant.channel()
    if route == f"DELETE {S}":
        tenant.subscribed(channel, world.agent)
    return ids | {"channel_id": channel}


def comparable(answer: httpx2.Response) -> tuple[int, str, dict[str, str]]:
    """Return the comparable parts of an answer, without its date, request id, and what is left of the rate limits."""
    own = answer.headers["x-request-id"]
    headers = {name: value for name, value in answer.headers.items() if name not in {"date", "x-request-id"}}
    if "ratelimit" in headers:
        headers["ratelimit"] = re.sub(r"(?<=;[rt]=)\d+", "", headers["ratelimit"])
    if "www-authenticate" in headers:  # It repeats the tenant of the path.
        headers["www-authenticate"] = re.sub(r"(?<=/v1/tenants/)[^/]*", "", headers["www-authenticate"])
    return answer.status_code, answer.text.replace(own, ""), headers


def elsewhere(ours: TenantRecords, theirs: TenantRecords, parameter: str, who: CallerKind) -> Iterator[dict[str, str]]:
    """Yield path parameters with one foreign, unknown or malformed id, or one foreign handle.

    A foreign tenant's id is also combined with its own records.
    """
    foreign = ABSENT[parameter] if parameter == "seq" else theirs.ids()[parameter]  # Every tenant has its own sequences.
    for id in (foreign, ABSENT[parameter], *(MALFORMED if who is CallerKind.OWNER else MALFORMED[:2])):
        yield ours.ids() | {parameter: id}
    if parameter in ("agent_id", "channel_id"):
        yield ours.ids() | {parameter: theirs.handles()[parameter]}
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
    is_read = route.startswith("GET ") and not route.endswith(("/messages", "/messages/stream", "/scheduled", "/receipts"))
    return None if is_read or route.endswith("/mcp") else (403, "tenant_suspended")  # Its tools refuse: `tool_matrix`.


def expected_elsewhere(route: str, who: CallerKind, parameter: str) -> tuple[int, str]:
    line = TABLE[route]
    if who in UNPROVEN:
        return 401, UNPROVEN[who]
    if who in SUSPENDED:
        is_out = parameter == "tenant_id" and who is not CallerKind.SUSPENDED_AGENT
        specific = None if is_out else while_suspended(route, who)
        return specific or (404, line.missing[parameter])
    if who in PENDING:
        return 403, "terms_required"
    if parameter == "tenant_id":
        return 404, line.missing[parameter]
    if line.there[who] == 403 or (line.about_agent and parameter == "agent_id" and who in AGENTS):
        return 403, "forbidden"
    return 404, line.missing[parameter]


@dataclass(frozen=True)
class Matrix:
    """The cells of the table; each raises AssertionError if the server answers differently."""

    rest_app: RestApp
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

    def by_handle(self, route: str, who: CallerKind) -> None:
        """Check that the answer for existing records is the same for handles in the place of ids."""
        answer = self.send(who, route, self.ours.ids() | self.ours.handles(), self.body_of(route))
        assert answer.status_code == expected_there(route, who)[0], answer.text

    def logging_in(self) -> None:
        """Check logins of agents: refused while the tenant is suspended."""
        for agent, expected in ((self.ours.agent, 200), (self.halted.agent, 403)):
            answer = agent.prove(agent.challenge())
            assert answer.status_code == expected, answer.text
        assert answer.json()["code"] == "tenant_suspended"

    def joining(self) -> None:
        """Check accepting an invitation: refused while the tenant is suspended."""
        answer = self.rest_app.user("late@example.com").post("/v1/invitations/acceptances", json={"token": self.late})
        assert (answer.status_code, answer.json()["code"]) == (403, "tenant_suspended")

    def managed(self, route: str, who: CallerKind) -> None:
        """Check the answer in a managed channel."""
        statuses, body = MANAGED[route]
        channel = self.ours.managed
        if route.startswith("PUT"):  # It changes the permissions that the other routes are tried with.
            channel = self.ours.tenant.channel(access="managed")
            self.ours.tenant.subscribed(channel, self.ours.agent)
        answer = self.send(who, route, self.ours.ids() | {"channel_id": channel}, body)
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
        expected = 403 if who is CallerKind.VIEWER else 404 if who in AGENTS else 201
        assert answer.status_code == expected, answer.text

    def publishing_only(self, route: str) -> None:
        """Check what an agent may do in a managed channel whose messages it may not receive."""
        channel = self.ours.tenant.channel(access="managed")
        path = self.ours.tenant.subscribed(channel, self.ours.agent)
        assert self.ours.tenant.owner.put(path, json={"permissions": ["publish"]}).status_code == 200
        answer = self.send(CallerKind.AGENT, route, self.ours.ids() | {"channel_id": channel}, MANAGED[route][1])
        assert answer.status_code == (201 if route.startswith("POST") else 403), answer.text

    def hidden(self, route: str) -> None:
        """Check that an agent without a subscription to a managed channel gets the answer of an unknown one, by id and handle."""
        answers = []
        own = self.ours.ids() | {"agent_id": self.ours.other.id}
        for name in (self.ours.managed, self.ours.managed_handle, ABSENT["channel_id"], "no-such-channel"):
            answer = self.send(CallerKind.OTHER, route, own | {"channel_id": name}, self.body_of(route))
            status, text, headers = comparable(answer)
            answers.append((status, text.replace(name, "NAME"), headers | {"content-length": ""}))
        assert answers == [answers[-1]] * len(answers)

    def moving(self, who: CallerKind) -> None:
        """Check moving the cursor of a subscription, also of a foreign and of an unknown agent."""
        statuses = TABLE[f"PATCH {S}"].there
        missing = dict.fromkeys(OWN, 404) | dict.fromkeys((CallerKind.VIEWER, *AGENTS), 403)
        for agent in (self.ours.agent.id, self.theirs.agent.id, ABSENT["agent_id"]):
            expected = (statuses if agent == self.ours.agent.id else missing)[who]
            answer = self.send(who, f"PATCH {S}", self.ours.ids() | {"agent_id": agent}, {"cursor": "last"})
            assert answer.status_code == expected, answer.text

    def inbox_history(self, who: CallerKind) -> None:
        """Check reading the messages of an agent's inbox, by each name of the inbox: only the agent itself may."""
        for name in (f"@{self.ours.agent.id}", f"@{self.ours.agent_handle}", self.ours.agent.id):
            ids = self.ours.ids() | {"channel_id": name}
            for part in ("messages", "messages/stream"):
                answer = self.send(who, f"GET {T}/channels/{{channel_id}}/{part}", ids, None)
                assert answer.status_code == ITSELF[who], answer.text
                assert who is CallerKind.AGENT or OUR_CANARY not in answer.text

    def answering_an_inbox(self, who: CallerKind) -> None:
        """Check naming a message of an agent's inbox as the cause: unknown to all but its agent and its sender."""
        caused_by = {"channel": f"@{self.ours.agent.id}", "seq": int(self.ours.inbox_seq)}
        route = f"POST {T}/channels/{{channel_id}}/messages"
        answer = self.send(who, route, self.ours.ids(), {"data": 1, "caused_by": caused_by})
        may = who in (CallerKind.OWNER, CallerKind.AGENT)  # The owner has sent it.
        expected = 403 if who is CallerKind.VIEWER else 201 if may else 422
        assert answer.status_code == expected, answer.text

    def owning(self, who: CallerKind) -> None:
        """Check granting the owner role, by an invitation and by a role change, and removing an owner."""
        owner = self.ours.tenant.member(Role.OWNER).get("/v1/me").json()["user_id"]
        viewer = self.ours.tenant.member(Role.VIEWER).get("/v1/me").json()["user_id"]
        invited = self.send(who, f"POST {T}/members", self.ours.ids(), {"address": "o@example.com", "role": "owner"})
        made = self.send(who, f"PATCH {T}/members/{{user_id}}", self.ours.ids() | {"user_id": viewer}, {"role": "owner"})
        removed = self.send(who, f"DELETE {T}/members/{{user_id}}", self.ours.ids() | {"user_id": owner}, None)
        found = (invited.status_code, made.status_code, removed.status_code)
        assert found == ((201, 200, 204) if who is CallerKind.OWNER else (403, 403, 403))

    def choosing_a_plan(self, who: CallerKind) -> None:
        """Check moving the tenant to a plan on offer, and to one that only the operator gives."""
        offered = self.send(who, f"PATCH {T}", self.ours.ids(), {"plan": "free"})
        reserved = self.send(who, f"PATCH {T}", self.ours.ids(), {"plan": "team"})
        found = (offered.status_code, reserved.status_code)
        assert found == ((200, 403) if who is CallerKind.OWNER else (403, 403))

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

    def send(self, who: CallerKind, route: str, ids: Mapping[str, str], body: Any) -> httpx2.Response:
        """Send a request and check that the answer contains no record of another tenant than the caller's."""
        method, template = route.split()
        path = template.format_map({name: quote(id, safe="") for name, id in ids.items()})
        caller = self.callers[who]
        answer = caller.begun(path) if route.endswith("/stream") else caller.request(method, path, json=body)
        self.check_text(who, answer.text)
        return answer

    def check_text(self, who: CallerKind, text: str) -> None:
        """Check that the text of an answer contains no record of another tenant than the caller's."""
        own: str | None = SUSPENDED_CANARY if who in SUSPENDED else THEIR_CANARY if who in OUTSIDE else OUR_CANARY
        if who in (CallerKind.OPERATOR, CallerKind.OPERATOR_PENDING):
            own = None
        assert not any(canary in text for canary in (OUR_CANARY, THEIR_CANARY, SUSPENDED_CANARY) if canary != own)

    def body_of(self, route: str) -> Any:
        make = TABLE[route].body
        return None if make is None else make(self.rest_app)


THERE: Final = [(route, who) for route in TABLE for who in CallerKind if who not in OUTSIDE or not PARAMETER.search(route)]
WRONG_IDS: Final = [
    (route, name, who) for route in TABLE for name in PARAMETER.findall(route) for who in CallerKind if who not in OUTSIDE
]
OWN: Final = [CallerKind.OWNER, CallerKind.ADMIN, CallerKind.MEMBER, CallerKind.VIEWER, CallerKind.AGENT, CallerKind.OTHER]
IN_MANAGED: Final = [(route, who) for route in MANAGED for who in OWN]
IN_MESSAGES: Final = [route for route in MANAGED if route.endswith(("/messages", "/stream"))]
WITH_CHANNEL: Final = [route for route in TABLE if "{channel_id}" in route]
FROM_OUTSIDE: Final = [(route, who) for route in TABLE if PARAMETER.search(route) for who in OUTSIDE]
