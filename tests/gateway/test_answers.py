"""Publishes that answer other messages, on a bare socket: their frames, their order, and what a stranger's message answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from artcafe.model import Role, UserId, UserPrincipal
from artcafe.wire import frames
from tests.gateway.gateway_app import gateway_app
from tests.services.test_loop_guard import limit


async def test_answer_is_delivered_with_its_chain_and_refused_with_it_above_the_limit(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await limit(it, hops=1)
        first = await raw.ask("publish", channel=it.channel.id, data=1)
        named = {"channel": it.channel.id, "seq": first["seq"], "message_id": first["message_id"]}
        second = await raw.ask("publish", channel=it.channel.id, data=2, caused_by=named)
        refused = await raw.ask("publish", channel=it.channel.id, data=3, caused_by=second["message_id"])

        pushed = {frame["message"]["data"]: frame["message"] for frame in raw.pushes if "message" in frame}
        while len(pushed) < 2:
            message = (await raw.next())["message"]
            pushed[message["data"]] = message
        assert {"caused_by", "hops", "chain"}.isdisjoint(pushed[1])
        chain = first["message_id"]
        assert (pushed[2]["caused_by"], pushed[2]["hops"], pushed[2]["chain"]) == (chain, 1, chain)
        assert (refused["code"], refused["temporary"], refused["chain"], refused["hops"]) == ("loop_stopped", False, chain, 2)
        assert (refused["limit"]["name"], refused["limit"]["limit"], refused["limit"]["used"]) == ("hops", 1, 2)


async def test_answers_refused_ones_and_other_messages_sent_at_once_keep_their_order(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await raw.ask("unsubscribe", channel=it.channel.id)
        first = await raw.ask("publish", channel=it.channel.id, data="first")
        ids = []
        for number in range(100):
            cause = (first["message_id"], None, "msg_unknown")[number % 3]
            ids.append(await raw.say("publish", channel=it.channel.id, data=number, caused_by=cause))
        replies: dict[object, dict[str, Any]] = {}
        while len(replies) < len(ids):
            frame = json.loads(await raw.socket.recv())
            replies[frame.get("id")] = frame
        refused = [number for number, id in enumerate(ids) if "error" in replies[id]]
        assert refused == [number for number in range(100) if number % 3 == 2]
        assert {replies[ids[number]]["error"]["code"] for number in refused} == {"cause_not_found"}
        stored = await it.services.fabric.tenant(it.owner.tenant_id).log.after(it.channel.id, 0)
        data = [msgspec.json.decode(each.envelope)["data"] for each in stored]
        assert data == ["first", *(number for number in range(100) if number % 3 != 2)]


async def test_message_of_another_tenant_answers_like_an_unknown_one(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        mallory = UserId("mallory")
        tenant = await it.services.tenants.create(mallory, "Mallory's")
        theirs = UserPrincipal(user_id=mallory, tenant_id=tenant.id, role=Role.OWNER)
        channel = await it.services.channels.create(theirs, name="theirs")
        foreign = await it.services.messaging.publish(theirs, channel.id, frames.Publish(channel.id, Raw(b"1")))
        named = [
            foreign.message_id,
            {"channel": channel.id, "seq": foreign.seq},
            {"channel": it.channel.id, "seq": foreign.seq, "message_id": foreign.message_id},
            "msg_00000000000000000000000000",
            {"channel": "chn_00000000000000000000000000", "seq": 1},
        ]
        answers = [await raw.ask("publish", channel=it.channel.id, data=1, caused_by=cause) for cause in named]
        assert answers == [answers[0]] * len(named)
        assert answers[0]["code"] == "cause_not_found"


async def test_admitted_answers_of_a_connection_that_breaks_are_not_counted(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        first = await it.services.messaging.publish(it.owner, it.channel.id, frames.Publish(it.channel.id, Raw(b"1")))
        cause = frames.Publish(it.channel.id, Raw(b"2"), caused_by=first.message_id)
        async with it.connected():
            (connection,) = it.gateway.connections()
            session = connection.dispatcher.session
            assert session is not None
            await session.admit([cause, cause])  # type: ignore[union-attr]  # it is an agent's
            assert (await it.services.loop_guard.get(it.owner, first.message_id or "")).messages == 3
            session.end()
        refunds = it.services.loop_guard._refunds
        assert len(refunds) == 2
