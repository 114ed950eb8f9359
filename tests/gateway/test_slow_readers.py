"""Slow and stalled readers, with and without TLS, on both event loops."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from artcafe.gateway.agent_session import AgentSession
from artcafe.gateway.connection import WRITE_HIGH_BYTES, Connection
from artcafe.model import ChannelType
from tests.certificates import Authority
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import BareSocket, RawClient, open_socket

TEXT, PING, PONG = 1, 9, 10


@pytest.fixture(params=["TCP", "TLS"])
def authority(request: pytest.FixtureRequest, tmp_path: Path) -> Authority | None:
    """Return the authority of the gateway's certificate, or None without TLS."""
    return Authority(tmp_path) if request.param == "TLS" else None


async def flood(it: GatewayApp, messages: int = 400) -> list[int]:
    """Publish about 12 MB, more than the buffers of two sockets hold."""
    data = b'"%b"' % (b"x" * 30_000)
    async with asyncio.TaskGroup() as group:
        storing = [group.create_task(it.publish(data)) for _ in range(messages)]
    return sorted(task.result() for task in storing)


async def seqs_of(raw: RawClient, count: int) -> list[int]:
    return [(await raw.message())["seq"] for _ in range(count)]


@pytest.mark.promise("10a", "10c")
async def test_slow_reader_delays_no_other_and_gets_everything_in_order_when_it_reads(
    tmp_path: Path, authority: Authority | None
) -> None:
    async with gateway_app(tmp_path, authority=authority) as it, it.connected_socket() as slow, it.connected() as fast:
        slow.stop_reading()
        stored = await flood(it)
        assert await seqs_of(fast, 400) == stored
        await until(lambda: any(each.is_paused for each in it.gateway.connections()))
        waiting = sum(each.waiting_bytes() for each in it.gateway.connections())
        assert waiting < 3 * 1024 * 1024

        slow.go_on_reading()
        got = [await slow.text() for _ in stored]
        assert [frame["message"]["seq"] for frame in got] == stored
        assert [frame["message"]["prev"] for frame in got] == [None, *stored[:-1]]
        # It has caught up again: both get new messages.
        (last,) = await flood(it, 1)
        assert (await slow.text())["message"]["seq"] == last
        assert (await fast.message())["seq"] == last


@pytest.mark.promise("10b", "10c")
async def test_stalled_reader_is_closed_with_4008_and_loses_nothing(tmp_path: Path) -> None:
    async with gateway_app(tmp_path, stall_s=0.2) as it:
        async with it.connected_socket() as stuck, it.connected() as fast:
            stuck.stop_reading()
            stored = await flood(it)
            assert await seqs_of(fast, 400) == stored
            await until(lambda: len(it.gateway.connections()) == 1 or any(each.is_closed for each in it.gateway.connections()))
            stuck.go_on_reading()
            assert await stuck.closed() == 4008
        async with it.connected() as again:
            assert await seqs_of(again, 400) == stored


@pytest.mark.promise("10b")
async def test_stalled_reader_is_closed_with_4008_while_more_messages_arrive(tmp_path: Path) -> None:
    async with gateway_app(tmp_path, stall_s=0.2) as it, it.connected_socket() as stuck:
        (connection,) = it.gateway.connections()
        stuck.stop_reading()
        while not connection.is_paused:
            connection.send(b"0" * 30_000)
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while not connection.is_closed:
                connection.send(b"0")
                await asyncio.sleep(0.001)  # shorter than the interval of the sweep
        stuck.go_on_reading()
        assert await stuck.closed() == 4008


async def test_peer_that_reads_no_replies_is_not_read_until_it_does(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected_socket() as rude, it.connected() as other:
        rude.stop_reading()
        commands = 40_000
        for id in range(commands):
            rude.send({"id": id, "unsubscribe": {"channel": "chn_none"}})
            if id % 1000 == 0:
                await asyncio.sleep(0)
        await until(lambda: any(each.is_paused for each in it.gateway.connections()))
        assert await other.is_quiet()
        assert sum(each.waiting_bytes() for each in it.gateway.connections()) < 2 * 1024 * 1024

        rude.go_on_reading()
        async with asyncio.timeout(20):
            for id in range(commands):
                assert (await rude.text())["id"] == id


async def test_short_stall_keeps_the_membership_and_misses_nothing(tmp_path: Path, authority: Authority | None) -> None:
    async with gateway_app(tmp_path, authority=authority) as it, it.connected_socket() as slow:
        live = await it.services.channels.create(it.owner, name="live", type=ChannelType.LIVE)
        slow.send({"id": 2, "subscribe": {"channel": live.id}})
        assert "subscribe" in await slow.text()
        (connection,) = it.gateway.connections()
        (delivery,) = [each for each in connection.deliveries.values() if not each.feed.kind.has_log]
        async with it.connected() as fast:
            await fast.ask("subscribe", channel=live.id)
            slow.stop_reading()
            count = 0
            # Large messages until the kernel's buffer is full, then small ones with pings between, and pongs in the same buffer.
            while count < 400 and connection.waiting_bytes() == 0:
                await it.say(b'[%d, "%b"]' % (count, b"x" * 30_000), live)
                assert (await fast.message())["data"][0] == count  # the flush is complete
                count += 1
            small = range(count, count + 100)
            for number in small:
                slow.send(b"%d" % number, PING)
                await it.say(b"[%d]" % number, live)
                assert (await fast.message())["data"] == [number]
            assert 0 < connection.waiting_bytes() < WRITE_HIGH_BYTES
            assert connection.descriptor is None
            assert delivery.is_member
            slow.go_on_reading()
            got, pongs = await taken(slow, count + 100)
            assert got == list(range(count + 100))
            await until(lambda: connection.waiting_bytes() == 0)
            await until(lambda: (connection.descriptor is None) is (authority is not None))
            await it.say(b"[-1]", live)
            pongs += (await taken(slow, 1))[1]
            assert pongs == list(small)


async def test_peer_that_reads_no_pongs_is_not_read_until_it_does(tmp_path: Path, authority: Authority | None) -> None:
    async with gateway_app(tmp_path, authority=authority) as it, it.connected_socket() as rude:
        (connection,) = it.gateway.connections()
        rude.stop_reading()
        pings = 40_000
        for number in range(pings):
            rude.send(b"%0125d" % number, PING)
            if number % 1000 == 0:
                await asyncio.sleep(0)
        await until(lambda: connection.is_paused)
        assert connection.waiting_bytes() < 2 * 1024 * 1024
        rude.go_on_reading()
        async with asyncio.timeout(20):
            for number in range(pings):
                while (frame := await rude.next())[0] == PING:
                    pass  # a ping of the server
                assert frame == (PONG, b"%0125d" % number)


async def test_connection_paused_by_its_replies_before_a_flush_gets_the_flushed_messages_later(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected_socket() as slow:
        (connection,) = it.gateway.connections()
        await it.caught_up()
        slow.stop_reading()
        count = 0
        while connection.waiting_bytes() == 0:
            count = await it.publish(b'"%b"' % (b"x" * 30_000))
            await flushed(it)
        async with asyncio.TaskGroup() as group:
            group.create_task(it.publish(b"0"))
            while not it.services.hub._unflushed:  # noqa: ASYNC110 (the condition has no event)
                await asyncio.sleep(0)
            connection.send(b"%0300000d" % 0)
            it.services.hub._flush()
            assert connection.is_paused
        slow.go_on_reading()
        assert [await seq_of(slow) for _ in range(count)] == list(range(1, count + 1))
        assert await slow.next() == (TEXT, b"%0300000d" % 0)
        assert await seq_of(slow) == count + 1


async def flushed(it: GatewayApp) -> None:
    """Wait until every stored message is flushed."""
    feed = it.services.hub._feeds[it.owner.tenant_id, it.channel.id]
    last = await feed.tenant_fabric.log.last_seq_of(it.channel.id)
    await until(lambda: feed.flushed == last)


async def seq_of(raw: BareSocket) -> int:
    seq: int = (await raw.text())["message"]["seq"]
    return seq


async def test_connection_paused_during_a_read_of_its_backlog_joins_no_feed_until_it_reads(
    tmp_path: Path,
) -> None:
    async with gateway_app(tmp_path) as it:
        await it.publish(
            b"0", await it.services.channels.create(it.owner, name="another")
        )  # begins the log, without a message of the watched channel
        for steps in range(12):
            await paused_while_it_is_fed(it, steps)
            await until(lambda: it.gateway.connections() == [])


async def paused_while_it_is_fed(it: GatewayApp, steps: int) -> None:
    async with it.connected_socket() as slow:
        (connection,) = it.gateway.connections()
        session = connection.session
        assert isinstance(session, AgentSession)
        backlog = session.subscriber.backlog
        while backlog._task is None:  # noqa: ASYNC110 (the condition has no event)
            await asyncio.sleep(0)
        for _ in range(steps):  # one step further each time
            await asyncio.sleep(0)
        connection.pause()
        await until(lambda: backlog._task is None)
        (delivery,) = connection.deliveries.values()
        assert not delivery.is_member
        connection.resume_writing()
        await it.caught_up()
        seq = await it.publish(b"1")
        assert await seq_of(slow) == seq
        slow.send({"ack": {"channel": it.channel.id, "seq": seq}})


async def taken(raw: BareSocket, count: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the next `count` messages, and of the pongs between them."""
    got: list[int] = []
    pongs: list[int] = []
    while len(got) < count:
        opcode, payload = await raw.next()
        if opcode == PONG:
            pongs.append(int(payload))
        elif opcode != PING:  # a ping of the server
            got.append(int(payload.partition(b'"data":[')[2].replace(b"]", b",").partition(b",")[0]))
    return got, pongs


# --- reuse of descriptors -------------------------------------------------------------------------------------------------


def reset(raw: BareSocket, _: Connection) -> None:
    """Reset the connection without a close."""
    raw.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    raw.writer.transport.abort()


ENDS: dict[str, Callable[[BareSocket, Connection], object]] = {
    "the peer closes": lambda raw, _: raw.send((1000).to_bytes(2, "big"), 8),
    "the peer hangs up": lambda raw, _: raw.writer.close(),
    "the peer resets": reset,
    "the peer speaks nonsense": lambda raw, _: raw.writer.write(b"\xff" * 64),
    "the server hangs up": lambda _, connection: connection.abort(),
}


async def test_error_at_the_end_of_a_socket_leaves_no_stale_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway_app(tmp_path) as it, it.connected_socket() as raw:
        (connection,) = it.gateway.connections()
        await it.caught_up()
        await it.publish(b"0")  # from here on the feed has the descriptor
        await seq_of(raw)
        descriptor = connection.descriptor
        with monkeypatch.context() as patched:
            patched.setattr(it.services.presence, "remove_socket", lambda _: 1 / 0)
            raw.writer.close()
            await until(lambda: it.gateway.connections() == [])
        (delivery,) = connection.deliveries.values()
        assert (delivery.is_member, connection.descriptor) == (True, None)
        async with open_socket(it.url) as stranger:
            (theirs,) = it.gateway.connections()
            assert theirs.descriptor == descriptor
            await it.publish(b'"not for strangers"')
            await flushed(it)
            stranger.send(b"still there", PING)
            assert await stranger.next() == (PONG, b"still there")
        delivery.feed.leave(delivery)


@pytest.mark.parametrize("how", ENDS)
async def test_no_bytes_are_written_to_a_reused_descriptor(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway_app(tmp_path) as it, it.connected_socket() as raw:
        (connection,) = it.gateway.connections()
        await it.caught_up()
        (delivery,) = connection.deliveries.values()
        descriptor = connection.descriptor
        assert descriptor is not None
        socket_of_it = os.fstat(descriptor).st_ino
        on_close, seen = it.gateway.on_close, asyncio.Event()

        def watched(ended: Connection) -> None:
            # Its deliveries have left their feeds before the descriptor can be reused.
            assert (os.fstat(descriptor).st_ino, ended.descriptor, delivery.is_member) == (socket_of_it, None, False)
            on_close(ended)
            seen.set()

        monkeypatch.setattr(it.gateway, "on_close", watched)
        ENDS[how](raw, connection)
        async with asyncio.timeout(20):
            await seen.wait()
