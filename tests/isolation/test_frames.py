"""Tenant isolation of the gateway: every cell of the frame matrix."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

import pytest

from artcafe.model import Access, ChannelType
from artcafe.wire import frames
from tests import ssh_keygen
from tests.gateway.raw_client import open_client
from tests.isolation.frame_matrix import (
    ABSENT,
    CANARY,
    ENDING,
    FOREIGN,
    INSIDE,
    MALFORMED,
    OUR_AGENTS,
    PEOPLE,
    REFUSED,
    SLOTS,
    TABLE,
    WITHDRAWN,
    GatewayTenants,
    PeerKind,
    barrier,
    refused,
    say_frame,
    send_frame,
    withdrawn,
    without_id,
    world,
)

# --- the table -------------------------------------------------------------------------------------------------------


def test_every_kind_of_frame_is_in_the_table() -> None:
    assert set(TABLE) == set(frames.KINDS)


def test_every_id_field_is_tested() -> None:
    hints = {kind: next(each for each in frames.Body.__args__ if each.__name__.lower() == kind) for kind in frames.KINDS}
    assert {kind: SLOTS & set(struct.__struct_encode_fields__) for kind, struct in hints.items()} == {
        kind: set(line.slots) for kind, line in TABLE.items()
    }


def test_every_kind_of_peer_is_tested() -> None:
    assert set(PeerKind) == {PeerKind.NOBODY, *REFUSED, *INSIDE, *FOREIGN}


# --- the cells -------------------------------------------------------------------------------------------------------


async def test_only_the_frames_in_the_table_are_handled_before_connect(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        found = {}
        for kind in TABLE:
            if TABLE[kind].is_before_connect:
                continue
            async with open_client(w.it.url) as raw:
                body = w.body(kind, PeerKind.AGENT)
                await say_frame(raw, kind, body)
                found[kind] = (await raw.closed(), raw.pushes)
        assert found == {kind: (4501, []) for kind, line in TABLE.items() if not line.is_before_connect}


async def test_refused_peer_gets_the_reason_and_its_later_frames_are_ignored(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        found = {(who, kind): await refused(w, who, kind) for who in REFUSED for kind in TABLE}
        assert found == {(who, kind): REFUSED[who] for who in REFUSED for kind in TABLE}
        assert await w.it.publish(b"1") == 1, "somebody has published"


@pytest.mark.parametrize("kind", TABLE)
async def test_frames_naming_existing_records(tmp_path: Path, kind: str) -> None:
    async with world(tmp_path) as w:
        found = {}
        for who in INSIDE:
            async with w.inside(who) as raw:
                found[who] = (await send_frame(raw, kind, w.body(kind, who)))[0]
        assert found == {who: TABLE[kind].there(who) for who in INSIDE}


@pytest.mark.parametrize("kind", [kind for kind, line in TABLE.items() if {"channel", "agent", "agent_id"} & set(line.slots)])
async def test_frames_naming_existing_records_by_handle(tmp_path: Path, kind: str) -> None:
    async with world(tmp_path) as w:
        found = {}
        for who in (PeerKind.MEMBER, *OUR_AGENTS):
            named = {slot: handle for slot, handle in w.handles(who).items() if slot in TABLE[kind].slots}
            async with w.inside(who) as raw:
                found[who] = (await send_frame(raw, kind, w.body(kind, who) | named))[0]
        assert found == {who: TABLE[kind].there(who) for who in found}


def elsewhere(w: GatewayTenants, slot: str, who: PeerKind) -> Iterable[str]:
    """Yield ids outside the peer's tenant; for peers of the other tenant, ids of this one."""
    yield (w.own if who in FOREIGN else w.foreign)[slot]
    if handle := w.handles(PeerKind.AGENT if who in FOREIGN else PeerKind.FOREIGN_AGENT).get(slot):
        yield handle
    yield ABSENT[slot]
    yield from MALFORMED


@pytest.mark.parametrize(("kind", "slot"), [(kind, slot) for kind, line in TABLE.items() for slot in line.slots])
async def test_foreign_unknown_and_malformed_ids_get_the_same_answer(tmp_path: Path, kind: str, slot: str) -> None:
    line = TABLE[kind]
    assert line.missing is not None
    async with world(tmp_path) as w, w.pending_requests() if slot == "request_id" else nullcontext():
        codes, whole = {}, []
        for who in (*INSIDE, *FOREIGN):
            answers = set()
            for id in elsewhere(w, slot, who):
                async with w.inside(who) as raw:
                    code, answer = await send_frame(raw, kind, w.body(kind, who) | {slot: id})
                    answers.add((code, without_id(kind, answer, id)))
                    if kind in ENDING:
                        assert await raw.closed() == 4500
                whole += [answer, json.dumps(raw.pushes)] if who not in FOREIGN else []
            assert len(answers) == 1, (who, answers)
            codes[who] = answers.pop()[0]
        people, agents = line.missing
        assert codes == {who: people if who in (*PEOPLE, PeerKind.FOREIGN_OWNER) else agents for who in (*INSIDE, *FOREIGN)}
        assert CANARY not in "".join(whole)
        await check_untouched(w)


async def test_managed_channel_is_like_an_unknown_one_for_an_agent_without_a_subscription(tmp_path: Path) -> None:
    """By id and by handle, whatever its type, for each frame that names a channel."""
    async with world(tmp_path) as w:
        create, names = w.it.services.channels.create, ["chn_none", "no-such-channel"]
        for type in (ChannelType.BROADCAST, ChannelType.QUEUE, ChannelType.LIVE):
            hidden = await create(w.it.owner, name="Hidden", access=Access.MANAGED, type=type)
            names += [hidden.id, str(hidden.handle)]
        for kind, more in [(kind, {}) for kind in TABLE if "channel" in TABLE[kind].slots] + [("subscribe", {"from": "first"})]:
            answers = []
            async with w.inside(PeerKind.OTHER) as raw:
                for name in names:
                    code, answer = await send_frame(raw, kind, w.body(kind, PeerKind.OTHER) | more | {"channel": name})
                    answers.append((code, without_id(kind, answer, name)))
            assert answers == [answers[0]] * len(names), kind


async def check_untouched(w: GatewayTenants) -> None:
    """Check that neither tenant contains anything from the other."""
    async with w.inside(PeerKind.FOREIGN_AGENT) as raw:
        kept = await raw.ask("history", channel=w.their_channel.id)
        assert [each["data"] for each in kept["messages"]] == [CANARY]
    async with w.inside(PeerKind.AGENT) as raw:
        assert (await raw.ask("history", channel=w.own["channel"]))["messages"] == []
    for principal, channel, agent in ((w.it.owner, w.it.channel, w.it.agent), (w.theirs, w.their_channel, w.their_agent)):
        rows = (await w.it.services.subscriptions.list_of_channel(principal, channel.id)).items
        assert [(row.agent_id, row.cursor.seq) for row in rows] == [(agent.id, 0)]


async def test_challenge_of_another_connection_is_answered_like_an_unknown_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w, open_client(w.it.url) as elsewhere:
        posed = await elsewhere.ask("challenge", tenant_id=w.own["tenant_id"], agent_id=w.own["agent_id"])
        signature = ssh_keygen.sign(w.it.key, posed["challenge"].encode())
        found = []
        for id in (posed["challenge_id"], "chl_00000000000000000000000000", *MALFORMED):
            async with open_client(w.it.url) as raw:
                await raw.say("connect", challenge_id=id, signature=signature)
                found.append((await raw.closed(), raw.pushes))
        assert found == [found[0]] * len(found)
        assert (found[0][0], found[0][1][0]["error"]["code"]) == (4500, "bad_credentials")


@pytest.mark.promise("12a")
async def test_messages_and_presence_never_reach_another_tenant(tmp_path: Path) -> None:
    async with world(tmp_path) as w, w.inside(PeerKind.FOREIGN_OWNER) as owner, w.inside(PeerKind.FOREIGN_AGENT) as agent:
        await owner.ask("watch", channel=w.their_channel.id)
        await owner.ask("watch", presence=True)
        await barrier(owner)
        assert [each["presence"]["connected"] for each in owner.pushes] == [True]
        assert await agent.messages(1) == [CANARY]
        owner.pushes.clear()
        async with w.inside(PeerKind.AGENT) as ours:
            await ours.ask("status", status="busy")
            assert (await ours.ask("publish", channel=w.own["channel"], data="ours"))["seq"] == 1
            assert await ours.messages(1) == ["ours"]
        for raw in (owner, agent):
            await barrier(raw)
            assert raw.pushes == []


async def test_connected_person_losing_access_is_closed_with_the_reason(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert await withdrawn(w) == WITHDRAWN
