"""Tenant isolation of the gateway as one table: kinds of frames × kinds of peers × existing, foreign, unknown, malformed ids.

A kind of frame missing in the table fails `test_frames`; `test_mutations` proves that the table detects missing checks.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec
from websockets.exceptions import ConnectionClosed

from artcafe.model import Agent, AgentPrincipal, AgentStatus, Channel, Member, Role, TenantStatus, UserId, UserPrincipal
from artcafe.rules.keys import key_id
from artcafe.services.pending_request import PendingRequest
from artcafe.services.terms import Current
from artcafe.wire import frames
from tests.gateway.gateway_app import OPERATOR, GatewayApp, gateway_app
from tests.gateway.raw_client import RawClient, open_client
from tests.services.service_env import new_key

CANARY: Final = "canary-5b1d"
"""Contained in everything of the other tenant."""


class PeerKind(StrEnum):
    """A kind of peer on a socket. The tenant is `ours`; foreign peers belong to `theirs`."""

    NOBODY = "nobody"
    GARBAGE = "garbage for a token"
    EXPIRED_AGENT = "agent with an expired token"
    EXPIRED_PERSON = "owner with an expired token"
    STRANGER = "owner of another tenant who names this one"
    INVITED = "admin of another tenant who has an open invitation here, and names this one"
    TERMS_PENDING = "owner who has not accepted the terms"
    OPERATOR = "operator of the platform who names this tenant"
    TRESPASSER = "agent of another tenant that names this one"
    DISABLED = "disabled agent"
    DELETED = "deleted agent"
    REKEYED = "agent that was given another key"
    REVOKED = "agent whose key was revoked"
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"
    AGENT = "agent that is subscribed"
    OTHER = "agent that is not"
    FOREIGN_AGENT = "agent of another tenant"
    FOREIGN_OWNER = "owner of another tenant"
    SUSPENDED_OWNER = "owner of a suspended tenant"
    SUSPENDED_ADMIN = "admin of a suspended tenant"
    SUSPENDED_MEMBER = "member of a suspended tenant"
    SUSPENDED_VIEWER = "viewer of a suspended tenant"
    SUSPENDED_AGENT = "agent of a suspended tenant"


PEOPLE: Final = (PeerKind.OWNER, PeerKind.ADMIN, PeerKind.MEMBER, PeerKind.VIEWER)
OUR_AGENTS: Final = (PeerKind.AGENT, PeerKind.OTHER)
INSIDE: Final = (*PEOPLE, *OUR_AGENTS)
FOREIGN: Final = (PeerKind.FOREIGN_AGENT, PeerKind.FOREIGN_OWNER)
SUSPENDED: Final = {
    Role.OWNER: PeerKind.SUSPENDED_OWNER,
    Role.ADMIN: PeerKind.SUSPENDED_ADMIN,
    Role.MEMBER: PeerKind.SUSPENDED_MEMBER,
} | {Role.VIEWER: PeerKind.SUSPENDED_VIEWER}
"""The people of the suspended tenant."""

REFUSED: Final[Mapping[PeerKind, tuple[str, int]]] = {
    PeerKind.GARBAGE: ("unauthenticated", 4500),
    PeerKind.EXPIRED_AGENT: ("credentials_expired", 4001),
    PeerKind.EXPIRED_PERSON: ("credentials_expired", 4001),
    PeerKind.STRANGER: ("no_member", 4500),
    PeerKind.INVITED: ("no_member", 4500),
    PeerKind.TERMS_PENDING: ("terms_required", 4500),
    PeerKind.OPERATOR: ("no_member", 4500),
    PeerKind.TRESPASSER: ("bad_credentials", 4500),
    PeerKind.DISABLED: ("revoked", 4503),
    PeerKind.DELETED: ("revoked", 4503),
    PeerKind.REKEYED: ("revoked", 4503),
    PeerKind.REVOKED: ("revoked", 4503),
    **dict.fromkeys((*SUSPENDED.values(), PeerKind.SUSPENDED_AGENT), ("tenant_suspended", 4506)),
}
"""The peers refused at `connect`: the error code and the close code."""

OK: Final = "ok"
SILENCE: Final = "silence"


@dataclass(frozen=True)
class FrameRule:
    """The expected answers to a kind of frame.

    With existing ids: by kind of peer inside. With a foreign, unknown or malformed id in one of the slots: to people, and to
    agents.
    """

    people: str
    agent: str
    other: str
    missing: tuple[str, str] | None = None
    slots: tuple[str, ...] = ()
    is_before_connect: bool = False

    def there(self, who: PeerKind) -> str:
        return self.people if who in PEOPLE else self.agent if who is PeerKind.AGENT else self.other


CHANNEL: Final = ("channel",)
TABLE: Final[Mapping[str, FrameRule]] = {
    "challenge": FrameRule(OK, OK, OK, (OK, OK), ("tenant_id", "agent_id"), is_before_connect=True),
    "connect": FrameRule(OK, OK, OK, ("no_member", "bad_credentials"), ("tenant_id",), is_before_connect=True),
    "publish": FrameRule("forbidden", OK, OK, ("forbidden", "channel_not_found"), CHANNEL),
    "subscribe": FrameRule("forbidden", OK, OK, ("forbidden", "channel_not_found"), CHANNEL),
    "unsubscribe": FrameRule("not_subscribed", OK, "not_subscribed", ("not_subscribed", "not_subscribed"), CHANNEL),
    "ack": FrameRule("forbidden", SILENCE, "not_subscribed", ("forbidden", "not_subscribed"), CHANNEL),
    "nak": FrameRule("forbidden", "not_subscribed", "not_subscribed", ("forbidden", "not_subscribed"), CHANNEL),
    "extend": FrameRule("forbidden", "not_subscribed", "not_subscribed", ("forbidden", "not_subscribed"), CHANNEL),
    "status": FrameRule("forbidden", OK, OK),
    "history": FrameRule("forbidden", OK, OK, ("forbidden", "channel_not_found"), CHANNEL),
    "request": FrameRule("forbidden", "timed_out", "agent_away", ("forbidden", "agent_not_found"), ("agent",)),
    "reply": FrameRule("forbidden", "not_pending", "not_pending", ("forbidden", "not_pending"), ("request_id",)),
    "cancel": FrameRule("forbidden", SILENCE, SILENCE),
    "accept": FrameRule("forbidden", OK, OK),
    "watch": FrameRule(OK, "forbidden", "forbidden", ("channel_not_found", "forbidden"), CHANNEL),
    "unwatch": FrameRule("not_subscribed", "forbidden", "forbidden", ("not_subscribed", "forbidden"), CHANNEL),
}

SLOTS: Final = {"tenant_id", "agent_id", "channel", "agent", "request_id"}
"""Frame fields that name a record of a tenant. `challenge_id` names a record of the connection, and has its own test."""

ABSENT: Final = {
    "tenant_id": "ten_00000000000000000000000000",
    "agent_id": "agt_00000000000000000000000000",
    "channel": "chn_00000000000000000000000000",
    "agent": "agt_00000000000000000000000000",
    "request_id": "ask_00000000000000000000000000",
}
MALFORMED: Final = ("x", "", "\0", "*", ">", "ch.>", "#", "~key#x", "..", "x" * 129, "x" * 5000)
ENDING: Final = ("connect",)
"""Kinds of frames that end the connection on failure."""


@dataclass(frozen=True)
class GatewayTenants:
    """Two tenants, and the credentials of every kind of peer."""

    it: GatewayApp
    theirs: UserPrincipal
    their_agent: Agent
    their_channel: Channel
    proofs: Mapping[PeerKind, dict[str, str]]
    requests: dict[str, PendingRequest] = field(default_factory=dict)
    """By tenant: a request without an answer, within `pending_requests`."""

    @property
    def own(self) -> dict[str, str]:
        return self._ids(self.it.owner, self.it.agent, self.it.channel)

    @property
    def foreign(self) -> dict[str, str]:
        return self._ids(self.theirs, self.their_agent, self.their_channel)

    def _ids(self, owner: UserPrincipal, agent: Agent, channel: Channel) -> dict[str, str]:
        pending = self.requests.get(owner.tenant_id)
        ids = {"tenant_id": owner.tenant_id, "agent_id": agent.id, "channel": channel.id, "agent": agent.id}
        return ids | {"request_id": ABSENT["request_id"] if pending is None else pending.id}

    def handles(self, who: PeerKind) -> dict[str, str | None]:
        """Return the handles of the records of the peer's tenant, by slot."""
        agent, channel = (self.their_agent, self.their_channel) if who in FOREIGN else (self.it.agent, self.it.channel)
        return {"agent_id": agent.handle, "agent": agent.handle, "channel": channel.handle}

    @asynccontextmanager
    async def pending_requests(self) -> AsyncIterator[None]:
        """Hold an unanswered request on a connection of an agent of each tenant, and check that none is answered."""
        answers: list[object] = []
        async with self.inside(PeerKind.AGENT) as ours, self.inside(PeerKind.FOREIGN_AGENT) as theirs:
            for owner, agent, raw in ((self.it.owner, self.it.agent, ours), (self.theirs, self.their_agent, theirs)):
                body = frames.Request(agent.id, msgspec.Raw(json.dumps(CANARY).encode()), 120)
                pending = await self.it.services.requests.submit(owner, body, answers.append)
                self.requests[owner.tenant_id] = pending
                while not any("request" in push for push in raw.pushes):
                    raw.pushes.append(await raw.next())
            yield
            assert answers == []

    def body(self, kind: str, who: PeerKind) -> dict[str, Any]:
        """Return a frame's body naming the tenant's own records."""
        bodies: dict[str, dict[str, Any]] = {
            "challenge": {"tenant_id": self.own["tenant_id"], "agent_id": self.own["agent_id"]},
            "connect": self.proofs[who],
            "publish": {"data": 1},
            "ack": {"seq": 0},
            "nak": {"seq": 1},
            "extend": {"seq": 1},
            "status": {"status": "busy"},
            "request": {"data": 1, "timeout_s": 1},
            "reply": {"data": 1},
            "cancel": {"id": 1},
            "accept": {"max_requests": 1},
        }
        named = {slot: self.own[slot] for slot in TABLE[kind].slots if kind not in ("challenge", "connect")}
        return bodies.get(kind, {}) | named

    @asynccontextmanager
    async def inside(self, who: PeerKind) -> AsyncIterator[RawClient]:
        """Connect as a peer; an agent's subscriptions are being delivered."""
        async with open_client(self.it.url) as raw:
            assert "session_id" in await raw.ask("connect", **self.proofs[who])
            await barrier(raw)
            yield raw


async def barrier(raw: RawClient) -> None:
    """Wait until every earlier frame is handled: anyone may request a challenge, and commands keep their order."""
    await raw.ask("challenge", tenant_id="ten_x", agent_id="agt_x")


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[GatewayTenants]:
    async with gateway_app(folder, terms=Current(version="2026-11")) as it:
        theirs = UserPrincipal(
            user_id=UserId("mallory"), tenant_id=(await it.services.tenants.create(UserId("mallory"), CANARY)).id, role=Role.OWNER
        )
        their_agent = await it.services.agents.create(theirs, name=CANARY, handle="their-agent", public_key=new_key())
        their_channel = await it.services.channels.create(theirs, name=CANARY, handle="their-channel")
        await it.services.subscriptions.put(theirs, their_channel.id, their_agent.id)
        body = frames.Publish(their_channel.id, msgspec.Raw(json.dumps(CANARY).encode()))
        await it.services.messaging.publish(theirs, body.channel, body)
        yield GatewayTenants(it, theirs, their_agent, their_channel, await proofs(it, theirs, their_agent))


async def suspended(it: GatewayApp) -> Mapping[PeerKind, dict[str, str]]:
    """Create a tenant with an agent and people of every role, suspend it, and return their credentials."""
    now, sam = it.clock(), UserId("sam")
    tenant = await it.services.tenants.create(sam, "Sam's")
    owner = UserPrincipal(user_id=sam, tenant_id=tenant.id, role=Role.OWNER)
    agent = await it.services.agents.create(owner, name="agent", public_key=new_key())
    found = {}
    for role, who in SUSPENDED.items():
        member = Member(user_id=UserId(f"{role}@example.org"), tenant_id=tenant.id, role=role, joined_at=now)
        await it.services.store.transact(it.services.store.people(tenant.id).insert_member(member))
        await it.services.terms.accept(member.user_id)
        found[who] = {"access_token": it.identity.issue(member.user_id, now), "tenant_id": tenant.id}
    principal = AgentPrincipal(agent_id=agent.id, tenant_id=tenant.id, epoch=agent.epoch)
    found[PeerKind.SUSPENDED_AGENT] = {"access_token": it.services.tokens.mint(principal, now), "tenant_id": tenant.id}
    rows = it.services.store.tenant(tenant.id)
    await rows.transact([rows.set_status(TenantStatus.SUSPENDED, now)])
    it.services.invalidation.notify(tenant.id)
    return found


async def invited(it: GatewayApp, theirs: UserPrincipal) -> UserId:
    """Create an admin of the other tenant with an open invitation into ours."""
    ivy = UserId("ivy@example.com")
    invitations = it.services.invitations
    _, token = await invitations.create(theirs, address=ivy, role=Role.ADMIN)
    await invitations.accept(ivy, ivy, token)
    await invitations.create(it.owner, address=ivy, role=Role.OWNER)
    return ivy


async def proofs(it: GatewayApp, theirs: UserPrincipal, their_agent: Agent) -> Mapping[PeerKind, dict[str, str]]:
    ours, now = it.owner.tenant_id, it.clock()
    found: dict[PeerKind, dict[str, str]] = {}
    for role in Role:
        user = UserId(f"{role}@example.com")
        await it.add_member(user, role)
        await it.services.terms.accept(user)
        found[PeerKind[role.name]] = {"access_token": it.identity.issue(user, now), "tenant_id": ours}

    terms_pending, ivy = UserId("terms_pending@example.com"), await invited(it, theirs)
    await it.add_member(terms_pending, Role.OWNER)
    for user in (ivy, OPERATOR, UserId("alice"), UserId("mallory")):
        await it.services.terms.accept(user)

    async def agent() -> Agent:
        return await it.services.agents.create(it.owner, name="agent", public_key=new_key())

    def token(of: Agent, key: int = 0) -> dict[str, str]:
        principal = AgentPrincipal(agent_id=of.id, tenant_id=of.tenant_id, epoch=of.epoch, key=key)
        return {"access_token": it.services.tokens.mint(principal, now), "tenant_id": of.tenant_id}

    disabled, deleted, rekeyed, revoked = [await agent() for _ in range(4)]
    _, key = await it.services.keys.add(it.owner, revoked.id, public_key=new_key())
    found |= await suspended(it)
    found |= {
        PeerKind.GARBAGE: {"access_token": "eyJhbGciOiJub25lIn0.e30.", "tenant_id": ours},
        PeerKind.EXPIRED_AGENT: {
            "access_token": it.services.tokens.mint(it.principal, now - timedelta(hours=1)),
            "tenant_id": ours,
        },
        PeerKind.EXPIRED_PERSON: {"access_token": it.identity.issue("alice", now - timedelta(days=1)), "tenant_id": ours},
        PeerKind.STRANGER: {"access_token": it.identity.issue("mallory", now), "tenant_id": ours},
        PeerKind.INVITED: {"access_token": it.identity.issue(ivy, now), "tenant_id": ours},
        PeerKind.OPERATOR: {"access_token": it.identity.issue(OPERATOR, now), "tenant_id": ours},
        PeerKind.TERMS_PENDING: {"access_token": it.identity.issue(terms_pending, now), "tenant_id": ours},
        PeerKind.TRESPASSER: token(their_agent) | {"tenant_id": ours},
        PeerKind.DISABLED: token(disabled),
        PeerKind.DELETED: token(deleted),
        PeerKind.REKEYED: token(rekeyed),
        PeerKind.REVOKED: token(revoked, key.serial),
        PeerKind.AGENT: token(it.agent),
        PeerKind.OTHER: token(await agent()),
        PeerKind.FOREIGN_AGENT: token(their_agent),
        PeerKind.FOREIGN_OWNER: {"access_token": it.identity.issue("mallory", now), "tenant_id": theirs.tenant_id},
    }
    await it.services.agents.update(it.owner, disabled.id, status=AgentStatus.DISABLED)
    await it.services.agents.delete(it.owner, deleted.id)
    await it.services.agents.update(it.owner, rekeyed.id, public_key=new_key())
    await it.services.keys.revoke(it.owner, revoked.id, key_id(key.line))
    return found


async def say_frame(raw: RawClient, kind: str, body: Mapping[str, Any]) -> None:
    """Send a frame without waiting for its answer."""
    if kind in frames.WITHOUT_ID:
        await raw.send(**{kind: body})
    else:
        await raw.say(kind, **body)


async def send_frame(raw: RawClient, kind: str, body: Mapping[str, Any]) -> tuple[str, str]:
    """Send a frame and return the answer's code and text."""
    raw.pushes.clear()
    if kind in frames.WITHOUT_ID:
        await raw.send(**{kind: body})
        await barrier(raw)
        found = [each["error"] for each in raw.pushes if "error" in each]
        return (found[0]["code"], json.dumps(found[0])) if found else (SILENCE, "")
    reply = await raw.ask(kind, **body)
    return str(reply.get("code", OK)), json.dumps(reply)


def without_id(kind: str, answer: str, id: str) -> str:
    """Return the answer without the requested id and without values that differ each time."""
    if kind == "challenge":
        return " ".join(sorted(json.loads(answer)))
    for quoted in (json.dumps(repr(id))[1:-1], json.dumps(id)):
        answer = answer.replace(quoted, "ID")
    return answer


# --- cells -----------------------------------------------------------------------------------------------------------


async def refused(w: GatewayTenants, who: PeerKind, kind: str) -> tuple[str, int]:
    """Return the error and close code of a refused peer, and check that a following frame is not handled."""
    async with open_client(w.it.url) as raw:
        id = await raw.say("connect", **w.proofs[who])
        body = w.body(kind, who)
        await say_frame(raw, kind, body)
        while (answer := await raw.next()).get("id") != id:
            raw.pushes.append(answer)
        raw.pushes.append(answer)
        assert "error" in answer, (who, kind, answer)
        code = await raw.closed()
        answers = [each for each in raw.pushes if "id" in each]
        assert [each["id"] for each in answers] == [id], (who, kind, raw.pushes)
        # An ack has no id and does not wait for connect: there are no deliveries yet.
        rest = [each["error"]["code"] for each in raw.pushes if "id" not in each]
        assert rest == (["not_subscribed"] if kind == "ack" else [])
        return answers[0]["error"]["code"], code


async def withdrawn(w: GatewayTenants) -> list[int | None]:
    """Return the close codes of connected people: one removed, one with a changed role, one in a suspended tenant. None: open."""
    async with w.inside(PeerKind.VIEWER) as removed, w.inside(PeerKind.MEMBER) as changed, w.inside(PeerKind.ADMIN) as last:
        await w.it.remove_member(UserId("viewer@example.com"))
        first = await close_code(w.it, removed)
        await w.it.set_role(UserId("member@example.com"), Role.VIEWER)
        second = await close_code(w.it, changed)
        await w.it.suspend()
        return [first, second, await close_code(w.it, last)]


async def close_code(it: GatewayApp, raw: RawClient) -> int | None:
    """Return the close code of a connection once all changes are applied, or None if it stays open."""
    await it.changes_applied()
    try:
        await barrier(raw)
    except ConnectionClosed as exc:
        return exc.rcvd.code if exc.rcvd else 1006
    return None


WITHDRAWN: Final = [4503, 4001, 4506]
