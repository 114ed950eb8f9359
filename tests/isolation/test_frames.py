"""The walls of the gateway: every kind of frame × whoever may be on a socket × what is there, another tenant's, absent or no id.

A kind of frame that is not in the table fails `test_every_kind_of_frame_has_its_line`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from artcafe.model import Agent, AgentPrincipal, AgentStatus, Channel, Role, UserId, UserPrincipal
from artcafe.rules.keys import key_id
from artcafe.wire import frames
from tests import ssh_keygen
from tests.gateway.house import House, house
from tests.gateway.raw import Raw, dialled
from tests.services.world import new_key

CANARY: Final = "canary-5b1d"
"""Stands in whatever the other tenant has."""


class Who(StrEnum):
    """Whoever may be on a socket. The tenant is `ours`; what is foreign is of `theirs`."""

    NOBODY = "nobody"
    GARBAGE = "garbage for a token"
    EXPIRED_AGENT = "agent with an expired token"
    EXPIRED_PERSON = "owner with an expired token"
    STRANGER = "owner of another tenant who names this one"
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


PEOPLE: Final = (Who.OWNER, Who.ADMIN, Who.MEMBER, Who.VIEWER)
OUR_AGENTS: Final = (Who.AGENT, Who.OTHER)
INSIDE: Final = (*PEOPLE, *OUR_AGENTS)
FOREIGN: Final = (Who.FOREIGN_AGENT, Who.FOREIGN_OWNER)

REFUSED: Final[Mapping[Who, tuple[str, int]]] = {
    Who.GARBAGE: ("unauthenticated", 4500),
    Who.EXPIRED_AGENT: ("credentials_expired", 4001),
    Who.EXPIRED_PERSON: ("credentials_expired", 4001),
    Who.STRANGER: ("no_member", 4500),
    Who.TRESPASSER: ("bad_credentials", 4500),
    Who.DISABLED: ("revoked", 4503),
    Who.DELETED: ("revoked", 4503),
    Who.REKEYED: ("revoked", 4503),
    Who.REVOKED: ("revoked", 4503),
}
"""Who does not come in: the error of `connect`, and the code that the connection is closed with."""

OK: Final = "ok"
SILENCE: Final = "silence"


@dataclass(frozen=True)
class Line:
    """What a kind of frame is answered: about what is there, by whoever is inside; and, to people and to agents, about an id in
    each of its slots that is foreign, absent or none."""

    people: str
    agent: str
    other: str
    missing: tuple[str, str] | None = None
    slots: tuple[str, ...] = ()
    is_before_connect: bool = False

    def there(self, who: Who) -> str:
        return self.people if who in PEOPLE else self.agent if who is Who.AGENT else self.other


CHANNEL: Final = ("channel",)
TABLE: Final[Mapping[str, Line]] = {
    "challenge": Line(OK, OK, OK, (OK, OK), ("tenant_id", "agent_id"), is_before_connect=True),
    "connect": Line(OK, OK, OK, ("no_member", "bad_credentials"), ("tenant_id",), is_before_connect=True),
    "publish": Line("forbidden", OK, OK, ("forbidden", "channel_not_found"), CHANNEL),
    "subscribe": Line("forbidden", OK, OK, ("forbidden", "channel_not_found"), CHANNEL),
    "unsubscribe": Line("not_subscribed", OK, "not_subscribed", ("not_subscribed", "not_subscribed"), CHANNEL),
    "ack": Line("forbidden", SILENCE, "not_subscribed", ("forbidden", "not_subscribed"), CHANNEL),
    "status": Line("forbidden", OK, OK),
    "history": Line("forbidden", OK, OK, ("forbidden", "channel_not_found"), CHANNEL),
    "watch": Line(OK, "forbidden", "forbidden", ("channel_not_found", "forbidden"), CHANNEL),
    "unwatch": Line("not_subscribed", "forbidden", "forbidden", ("not_subscribed", "forbidden"), CHANNEL),
}

SLOTS: Final = {"tenant_id", "agent_id", "channel", "agent", "request_id"}
"""Fields of a frame that name something of a tenant. `challenge_id` names something of the connection, and has its own test."""

ABSENT: Final = {
    "tenant_id": "ten_00000000000000000000000000",
    "agent_id": "agt_00000000000000000000000000",
    "channel": "chn_00000000000000000000000000",
}
MALFORMED: Final = ("x", "", "\0", "*", ">", "ch.>", "#", "~key#x", "..", "x" * 129, "x" * 5000)
ENDING: Final = ("connect",)
"""Kinds whose failure ends the connection."""


@dataclass(frozen=True)
class World:
    """Two tenants, and the proof of everybody."""

    it: House
    theirs: UserPrincipal
    their_agent: Agent
    their_channel: Channel
    proofs: Mapping[Who, dict[str, str]]

    @property
    def own(self) -> dict[str, str]:
        return {"tenant_id": self.it.owner.tenant_id, "agent_id": self.it.agent.id, "channel": self.it.channel.id}

    @property
    def foreign(self) -> dict[str, str]:
        return {"tenant_id": self.theirs.tenant_id, "agent_id": self.their_agent.id, "channel": self.their_channel.id}

    def body(self, kind: str, who: Who) -> dict[str, Any]:
        """What is said about things of the tenant."""
        bodies: dict[str, dict[str, Any]] = {
            "challenge": {"tenant_id": self.own["tenant_id"], "agent_id": self.own["agent_id"]},
            "connect": self.proofs[who],
            "publish": {"data": 1},
            "ack": {"seq": 0},
            "status": {"status": "busy"},
        }
        return bodies.get(kind, {}) | ({"channel": self.own["channel"]} if TABLE[kind].slots == CHANNEL else {})

    @asynccontextmanager
    async def inside(self, who: Who) -> AsyncIterator[Raw]:
        """Somebody who has come in; an agent's subscriptions are being delivered."""
        async with dialled(self.it.url) as raw:
            assert "session_id" in await raw.ask("connect", **self.proofs[who])
            await barrier(raw)
            yield raw


async def barrier(raw: Raw) -> None:
    """Returns when all that was said before has been done: anybody may ask for a challenge, and commands keep their order."""
    await raw.ask("challenge", tenant_id="ten_x", agent_id="agt_x")


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    async with house(folder) as it:
        theirs = UserPrincipal(
            user_id=UserId("mallory"), tenant_id=(await it.tenants.create(UserId("mallory"), CANARY)).id, role=Role.OWNER
        )
        their_agent = await it.agents.create(theirs, name=CANARY, public_key=new_key())
        their_channel = await it.channels.create(theirs, name=CANARY)
        await it.subscriptions.put(theirs, their_channel.id, their_agent.id)
        body = frames.Publish(their_channel.id, msgspec.Raw(json.dumps(CANARY).encode()))
        await it.messaging.publish(theirs, body.channel, body)
        yield World(it, theirs, their_agent, their_channel, await proofs(it, theirs, their_agent))


async def proofs(it: House, theirs: UserPrincipal, their_agent: Agent) -> Mapping[Who, dict[str, str]]:
    ours, now = it.owner.tenant_id, it.clock()
    found: dict[Who, dict[str, str]] = {}
    for role in Role:
        user = UserId(f"{role}@example.com")
        await it.join(user, role)
        found[Who[role.name]] = {"access_token": it.identity.issue(user, now), "tenant_id": ours}

    async def agent() -> Agent:
        return await it.agents.create(it.owner, name="agent", public_key=new_key())

    def token(of: Agent, key: int = 0) -> dict[str, str]:
        principal = AgentPrincipal(agent_id=of.id, tenant_id=of.tenant_id, epoch=of.epoch, key=key)
        return {"access_token": it.tokens.mint(principal, now), "tenant_id": of.tenant_id}

    disabled, deleted, rekeyed, revoked = [await agent() for _ in range(4)]
    _, key = await it.keys.add(it.owner, revoked.id, public_key=new_key())
    found |= {
        Who.GARBAGE: {"access_token": "eyJhbGciOiJub25lIn0.e30.", "tenant_id": ours},
        Who.EXPIRED_AGENT: {"access_token": it.tokens.mint(it.principal, now - timedelta(hours=1)), "tenant_id": ours},
        Who.EXPIRED_PERSON: {"access_token": it.identity.issue("alice", now - timedelta(days=1)), "tenant_id": ours},
        Who.STRANGER: {"access_token": it.identity.issue("mallory", now), "tenant_id": ours},
        Who.TRESPASSER: token(their_agent) | {"tenant_id": ours},
        Who.DISABLED: token(disabled),
        Who.DELETED: token(deleted),
        Who.REKEYED: token(rekeyed),
        Who.REVOKED: token(revoked, key.serial),
        Who.AGENT: token(it.agent),
        Who.OTHER: token(await agent()),
        Who.FOREIGN_AGENT: token(their_agent),
        Who.FOREIGN_OWNER: {"access_token": it.identity.issue("mallory", now), "tenant_id": theirs.tenant_id},
    }
    await it.agents.update(it.owner, disabled.id, status=AgentStatus.DISABLED)
    await it.agents.delete(it.owner, deleted.id)
    await it.agents.update(it.owner, rekeyed.id, public_key=new_key())
    await it.keys.revoke(it.owner, revoked.id, key_id(key.line))
    return found


async def said(raw: Raw, kind: str, body: Mapping[str, Any]) -> tuple[str, str]:
    """What a frame is answered: its code, and the whole answer."""
    raw.pushes.clear()
    if kind == "ack":
        await raw.send(ack=body)
        await barrier(raw)
        told = [each["error"] for each in raw.pushes if "error" in each]
        return (told[0]["code"], json.dumps(told[0])) if told else (SILENCE, "")
    reply = await raw.ask(kind, **body)
    return str(reply.get("code", OK)), json.dumps(reply)


def nameless(kind: str, answer: str, id: str) -> str:
    """The answer without the id that was asked about, and without what is new each time."""
    if kind == "challenge":
        return " ".join(sorted(json.loads(answer)))
    for quoted in (json.dumps(repr(id))[1:-1], json.dumps(id)):
        answer = answer.replace(quoted, "ID")
    return answer


# --- the table -------------------------------------------------------------------------------------------------------


def test_every_kind_of_frame_has_its_line() -> None:
    assert set(TABLE) == set(frames.KINDS)


def test_every_slot_for_an_id_is_tried() -> None:
    hints = {kind: next(each for each in frames.Body.__args__ if each.__name__.lower() == kind) for kind in frames.KINDS}
    assert {kind: SLOTS & set(struct.__struct_encode_fields__) for kind, struct in hints.items()} == {
        kind: set(line.slots) for kind, line in TABLE.items()
    }


def test_everybody_is_tried() -> None:
    assert set(Who) == {Who.NOBODY, *REFUSED, *INSIDE, *FOREIGN}


# --- the cells -------------------------------------------------------------------------------------------------------


async def test_before_connect_nothing_is_heard_but_what_the_table_says(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        found = {}
        for kind in TABLE:
            if TABLE[kind].is_before_connect:
                continue
            async with dialled(w.it.url) as raw:
                body = w.body(kind, Who.AGENT)
                await (raw.send(ack=body) if kind == "ack" else raw.say(kind, **body))
                found[kind] = (await raw.closed(), raw.pushes)
        assert found == {kind: (4501, []) for kind, line in TABLE.items() if not line.is_before_connect}


async def test_who_does_not_come_in_is_told_why_and_nothing_behind_it_is_done(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        found = {}
        for who in REFUSED:
            for kind in TABLE:
                async with dialled(w.it.url) as raw:
                    id = await raw.say("connect", **w.proofs[who])
                    body = w.body(kind, who)
                    await (raw.send(ack=body) if kind == "ack" else raw.say(kind, **body))
                    code = await raw.closed()
                    answers = [each for each in raw.pushes if "id" in each]
                    assert [each["id"] for each in answers] == [id], (who, kind, raw.pushes)
                    found[who, kind] = (answers[0]["error"]["code"], code)
                    # An ack, which has no id, is not made to wait for connect: nobody receives anything yet.
                    rest = [each["error"]["code"] for each in raw.pushes if "id" not in each]
                    assert rest == (["not_subscribed"] if kind == "ack" else [])
        assert found == {(who, kind): REFUSED[who] for who in REFUSED for kind in TABLE}
        assert await w.it.publish(b"1") == 1, "somebody has published"


@pytest.mark.parametrize("kind", TABLE)
async def test_what_is_there(tmp_path: Path, kind: str) -> None:
    async with world(tmp_path) as w:
        found = {}
        for who in INSIDE:
            async with w.inside(who) as raw:
                found[who] = (await said(raw, kind, w.body(kind, who)))[0]
        assert found == {who: TABLE[kind].there(who) for who in INSIDE}


def elsewhere(w: World, slot: str, who: Who) -> Iterable[str]:
    """Ids that are not this tenant's; for those of the other tenant, this one's."""
    yield (w.own if who in FOREIGN else w.foreign)[slot]
    yield ABSENT[slot]
    yield from MALFORMED


@pytest.mark.parametrize(("kind", "slot"), [(kind, slot) for kind, line in TABLE.items() for slot in line.slots])
async def test_what_is_elsewhere_is_answered_like_what_is_nowhere(tmp_path: Path, kind: str, slot: str) -> None:
    line = TABLE[kind]
    assert line.missing is not None
    async with world(tmp_path) as w:
        codes, whole = {}, []
        for who in (*INSIDE, *FOREIGN):
            answers = set()
            for id in elsewhere(w, slot, who):
                async with w.inside(who) as raw:
                    code, answer = await said(raw, kind, w.body(kind, who) | {slot: id})
                    answers.add((code, nameless(kind, answer, id)))
                    if kind in ENDING:
                        assert await raw.closed() == 4500
                whole += [answer, json.dumps(raw.pushes)] if who not in FOREIGN else []
            assert len(answers) == 1, (who, answers)
            codes[who] = answers.pop()[0]
        people, agents = line.missing
        assert codes == {who: people if who in (*PEOPLE, Who.FOREIGN_OWNER) else agents for who in (*INSIDE, *FOREIGN)}
        assert CANARY not in "".join(whole)
        await check_untouched(w)


async def check_untouched(w: World) -> None:
    """Neither tenant has anything of the other's doing."""
    async with w.inside(Who.FOREIGN_AGENT) as raw:
        kept = await raw.ask("history", channel=w.their_channel.id)
        assert [each["data"] for each in kept["messages"]] == [CANARY]
    async with w.inside(Who.AGENT) as raw:
        assert (await raw.ask("history", channel=w.own["channel"]))["messages"] == []
    for principal, channel, agent in ((w.it.owner, w.it.channel, w.it.agent), (w.theirs, w.their_channel, w.their_agent)):
        rows = (await w.it.subscriptions.of_channel(principal, channel.id)).items
        assert [(row.agent_id, row.cursor.seq) for row in rows] == [(agent.id, 0)]


async def test_a_challenge_of_another_connection_is_like_one_that_is_none(tmp_path: Path) -> None:
    async with world(tmp_path) as w, dialled(w.it.url) as elsewhere:
        posed = await elsewhere.ask("challenge", tenant_id=w.own["tenant_id"], agent_id=w.own["agent_id"])
        signature = ssh_keygen.sign(w.it.key, posed["challenge"].encode())
        found = []
        for id in (posed["challenge_id"], "chl_00000000000000000000000000", *MALFORMED):
            async with dialled(w.it.url) as raw:
                await raw.say("connect", challenge_id=id, signature=signature)
                found.append((await raw.closed(), raw.pushes))
        assert found == [found[0]] * len(found)
        assert (found[0][0], found[0][1][0]["error"]["code"]) == (4500, "bad_credentials")


async def test_what_a_tenant_says_reaches_nobody_of_another(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.inside(Who.FOREIGN_OWNER) as owner, w.inside(Who.FOREIGN_AGENT) as agent:
        await owner.ask("watch", channel=w.their_channel.id)
        await owner.ask("watch", presence=True)
        await barrier(owner)
        assert [each["presence"]["connected"] for each in owner.pushes] == [True]
        assert await agent.messages(1) == [CANARY]
        owner.pushes.clear()
        async with w.inside(Who.AGENT) as ours:
            await ours.ask("status", status="busy")
            assert (await ours.ask("publish", channel=w.own["channel"], data="ours"))["seq"] == 1
            assert await ours.messages(1) == ["ours"]
        for raw in (owner, agent):
            await barrier(raw)
            assert raw.pushes == []
