from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from artcafe.gateway.connection import Connection
from artcafe.gateway.login_handshake import MAX_CHALLENGES
from artcafe.rules import subjects, tokens
from artcafe.services.login import CHALLENGE_S
from artcafe.tables.catalog import TENANTS
from artcafe.tables.engine.writes import Assign, ItemKey, Update
from tests import ssh_keygen
from tests.gateway.gateway_app import gateway_app, until
from tests.gateway.raw_client import UPGRADE, http_answer, open_client, open_socket
from tests.platform import Platform, running


@pytest.mark.parametrize(
    ("path", "left_out", "status", "words"),
    [
        ("/", "", 404, "agents connect at /v1/connect"),
        ("/v1/connect/", "", 404, "There is nothing at /v1/connect/"),
        ("/v1/connect?access_token=e30", "", 400, "Nothing goes into this URL"),
        ("/v1/connect", "Upgrade", 426, "This is a WebSocket"),
        ("/v1/connect", "Sec-WebSocket-Protocol", 400, "Sec-WebSocket-Protocol: artcafe.v1"),
        ("/v1/connect", "Sec-WebSocket-Key", 400, ""),
    ],
)
async def test_invalid_upgrade_request_is_answered_with_the_remedy(
    platform: Platform, path: str, left_out: str, status: int, words: str
) -> None:
    lines = tuple(line for line in UPGRADE if line.partition(":")[0] != left_out)

    answer = await http_answer(platform.gateway_url, path, lines)

    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert words in answer
    assert ("upgrade: websocket" in answer.lower()) is (status == 426)


async def test_subprotocol_is_found_among_others_in_any_header_line(platform: Platform) -> None:
    offers = tuple(line for line in UPGRADE if "Protocol" not in line)
    offers += ("Sec-WebSocket-Protocol: chat, other", "Sec-WebSocket-Protocol: more,artcafe.v1")
    answer = await http_answer(platform.gateway_url, "/v1/connect?x", offers)
    assert answer.startswith("HTTP/1.1 400 ")
    assert "Nothing goes into this URL" in answer


async def test_socket_without_connect_is_closed_with_4502(tmp_path: Path) -> None:
    async with gateway_app(tmp_path, connect_s=0.1) as it, open_client(it.url) as silent, open_client(it.url) as talking:
        await talking.ask("challenge", tenant_id="t", agent_id="a")

        assert (await silent.closed(), await talking.closed()) == (4502, 4502)
        await until(lambda: not it.gateway.connections())


async def test_refused_upgrades_leave_nothing_and_delay_no_deadline(tmp_path: Path) -> None:
    async with gateway_app(tmp_path, connect_s=0.05) as it, it.connected() as raw:
        for _ in range(3):
            await http_answer(it.url, lines=tuple(line for line in UPGRADE if "Key" not in line))
        assert len(it.gateway.connections()) == 1

        async with open_client(it.url) as late:  # its deadline is later than theirs
            assert await late.closed() == 4502
        assert await raw.is_quiet()


async def test_peer_without_pongs_is_closed_with_4012_and_others_stay_open(tmp_path: Path) -> None:
    async with gateway_app(tmp_path, sweep_s=0.005) as it, it.connected_socket() as dumb, it.connected() as alive:
        seen = [await dumb.next(), await dumb.next()]

        assert [opcode for opcode, _ in seen] == [9, 8]
        assert int.from_bytes(seen[1][1][:2], "big") == 4012
        assert await alive.is_quiet()


async def test_expired_token_closes_its_socket_with_4001_unless_it_was_renewed(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as old, it.connected() as renewed, it.connected_socket() as signed:
        it.clock.ahead += timedelta(seconds=tokens.LIFETIME_S - 60)
        await renewed.ask("connect", access_token=it.token())
        assert await old.is_quiet()
        it.clock.ahead += timedelta(seconds=61)

        assert await old.closed() == 4001
        assert await renewed.is_quiet()
        signed.send({"id": 5, "unsubscribe": {"channel": it.channel.id}})
        assert "unsubscribe" in await signed.text()


async def test_renewal_by_a_signature_keeps_the_socket_and_its_window(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected(max_unacked=1) as raw:
        await it.publish(b"1")
        await it.publish(b"2")
        assert await raw.messages(1) == [1]
        assert "session_id" in await raw.login(it.owner.tenant_id, it.agent.id, it.key)
        it.clock.ahead += timedelta(seconds=tokens.LIFETIME_S + 1)
        other = await it.services.channels.create(it.owner, name="other")
        await it.services.subscriptions.put(it.owner, other.id, it.agent.id)
        await it.publish(b"3", other)
        await it.publish(b"4", other)

        assert await raw.messages(1) == [3]
        assert await raw.is_quiet()  # the window of the first connect also applies to later deliveries
        await raw.ack(it.channel.id, 1)
        assert await raw.messages(1) == [2]


async def test_renewal_by_another_agent_or_a_wrong_key_closes_the_connection(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw, it.connected() as other:
        wrong = ssh_keygen.make_key(tmp_path / "wrong")
        for each, agent in ((raw, it.agent.id), (other, "agt_none")):
            posed = await each.ask("challenge", tenant_id=it.owner.tenant_id, agent_id=agent)
            signature = ssh_keygen.sign(wrong, posed["challenge"].encode())
            await each.say("connect", challenge_id=posed["challenge_id"], signature=signature)
            assert await each.closed() == 4500


async def test_expired_challenges_make_room_for_new_ones(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        claim = {"tenant_id": it.owner.tenant_id, "agent_id": it.agent.id}
        for _ in range(MAX_CHALLENGES):
            assert "challenge" in await raw.ask("challenge", **claim)
        assert (await raw.ask("challenge", **claim))["code"] == "bad_command"
        it.clock.ahead += timedelta(seconds=CHALLENGE_S + 1)
        assert "challenge" in await raw.ask("challenge", **claim)


@pytest.mark.parametrize("limit", ["connections", "agent_connections"])
async def test_connection_above_the_limit_is_closed_with_4504_until_another_one_closes(tmp_path: Path, limit: str) -> None:
    async with gateway_app(tmp_path) as it:
        await it.tables.update(Update(TENANTS, ItemKey(it.owner.tenant_id), [Assign("limits", {limit: 2})]))
        async with it.connected() as first, it.connected() as second, open_client(it.url) as third:
            await third.say("connect", access_token=it.token())
            assert await third.closed() == 4504
            (told,) = third.pushes
            assert told["error"]["code"] == "connection_limit"
            assert (told["error"]["limit"]["name"], told["error"]["limit"]["limit"], told["error"]["limit"]["left"]) == (
                limit,
                2,
                0,
            )
            assert await first.is_quiet()
            if limit == "connections":
                assert (await second.next())["limits"]["percent"] == 100
            assert await second.is_quiet()
            await first.ask("connect", access_token=it.token())  # a renewal does not count as a connection
        await until(lambda: not it.gateway.connections())
        async with it.connected() as again:
            assert await again.is_quiet()


async def test_connections_of_other_tenants_and_agents_do_not_count(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await it.tables.update(Update(TENANTS, ItemKey(it.owner.tenant_id), [Assign("limits", {"agent_connections": 1})]))
        key = ssh_keygen.make_key(tmp_path / "other")
        other = await it.services.agents.create(it.owner, name="other", public_key=ssh_keygen.public_line(key))
        async with it.connected(), open_client(it.url) as raw:
            assert "session_id" in await raw.login(it.owner.tenant_id, other.id, key)


async def test_expired_token_is_refused_with_4001(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, open_client(it.url) as raw:
        token = it.token()
        it.clock.ahead += timedelta(seconds=tokens.LIFETIME_S)
        await raw.say("connect", access_token=token)

        assert await raw.closed() == 4001


@pytest.mark.promise("6c")
async def test_drain_closes_every_socket_with_4000_and_writes_cursors(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw, open_client(it.url) as fresh, open_socket(it.url) as stubborn:
        await it.publish(b"1")
        message = await raw.message()
        await raw.ack(it.channel.id, message["seq"])
        await raw.is_quiet()
        await it.gateway.drain()

        assert (await raw.closed(), await fresh.closed(), await stubborn.closed()) == (4000, 4000, 4000)
        row, _ = await it.services.subscriptions.put(it.owner, it.channel.id, it.agent.id)
        assert row.cursor.seq == message["seq"]
        with pytest.raises(ConnectionRefusedError):
            await http_answer(it.url)


@pytest.mark.promise("6c")
def test_stopped_server_closes_with_4000_and_the_next_one_repeats_no_acknowledged_message(tmp_path: Path) -> None:
    async def first(platform: Platform) -> tuple[int, list[str]]:
        cast = await platform.tenant_with(agents=1)
        async with open_client(platform.gateway_url) as raw:
            await raw.login(cast.tenant, cast.agents[0], cast.keys[0])
            for number in range(3):
                await raw.ask("publish", channel=cast.channels[0], data=number)
            assert await raw.messages(3) == [0, 1, 2]
            await raw.ack(cast.channels[0], 2)
            assert await raw.is_quiet()
            stopping = asyncio.get_running_loop().run_in_executor(None, platform.stop)
            code = await raw.closed()
            assert await stopping == 0
        return code, [cast.tenant, cast.agents[0], str(cast.keys[0])]

    async def second(platform: Platform, tenant: str, agent: str, key: str) -> list[object]:
        async with open_client(platform.gateway_url) as raw:
            await raw.login(tenant, agent, Path(key))
            return await raw.messages(1)

    with running(tmp_path, ["--cursor-write-s", "600"]) as platform:
        code, who = asyncio.run(first(platform))
        assert code == 4000
        platform.start()
        assert asyncio.run(second(platform, *who)) == [2]


async def test_sockets_aborted_during_connect_leave_nothing(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        for number in range(30):
            async with open_socket(it.url) as raw:
                raw.send({"id": 1, "connect": {"access_token": it.token()}})
                raw.send({"id": 2, "subscribe": {"channel": it.channel.id, "from": "first"}})
                raw.send({"id": 3, "publish": {"channel": it.channel.id, "data": number}})
                for _ in range(number):
                    await asyncio.sleep(0)  # one step further each time
        await until(lambda: not it.gateway.connections() and not it.gateway.access_updates.tenants())
        await until(lambda: not it.services.hub._feeds)
        tenant_fabric = it.services.fabric.peek(it.owner.tenant_id)

        assert tenant_fabric is not None
        channels = {subjects.live(it.channel.id), subjects.stored(it.channel.id)}
        await until(
            lambda: (
                len(tenant_fabric.readers) == 0
                and not channels & {each.subject for each in tenant_fabric.connection._subscriptions}
            )
        )
        assert len(tenant_fabric.presence) == 0
        async with it.connected() as again:
            await it.publish(b'"still here"')
            while (await again.message())["data"] != "still here":
                pass


# --- unexpected errors -----------------------------------------------------------------------------------------------------


async def test_connection_that_fails_to_close_keeps_no_other_open(tmp_path: Path) -> None:
    async with gateway_app(tmp_path, connect_s=0.05) as it:
        # Closing fails: without an upgrade it has no transport.
        broken = Connection(it.gateway._services, it.gateway._group, it.gateway, it.gateway.count_connection("127.0.0.1"), [])
        it.gateway.on_open(broken)
        async with open_client(it.url) as silent:
            assert await silent.closed() == 4502
        assert it.gateway.supervisor.failures > 0
        it.gateway.on_close(broken)


async def test_unexpected_error_while_applying_a_change_closes_the_connection_and_the_loop_continues(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        async with it.connected() as raw:
            it.clock.ahead = timedelta.max  # every use of the clock raises OverflowError
            it.services.invalidation.notify(it.owner.tenant_id)
            assert await raw.closed() == 4000
        it.clock.ahead = timedelta()
        assert it.gateway.access_updates.supervisor.failures > 0
        async with it.connected() as raw:
            await it.suspend()
            assert await raw.closed() == 4506
