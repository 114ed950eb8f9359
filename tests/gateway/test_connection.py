from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from artcafe.wire.frames import MAX_FRAME_BYTES
from tests.gateway.house import House, house, until
from tests.gateway.raw import Raw, bare, dialled
from tests.platform import Platform

TEXT, CONTINUATION, BINARY, CLOSE, MORE = 1, 0, 2, 8, -0x80
"""Opcodes (RFC 6455, section 5.2); adding MORE takes the FIN bit away."""


def challenge(padding: int = 0) -> bytes:
    return json.dumps({"id": 7, "challenge": {"tenant_id": "t" * (1 + padding), "agent_id": "a"}}).encode()


async def test_a_frame_may_come_in_fragments_with_pings_between_them(platform: Platform) -> None:
    async with bare(platform.gateway_url) as raw:
        text = challenge()
        raw.send(text[:10], TEXT + MORE)
        raw.send(b"", CONTINUATION + MORE)
        raw.send(b"between", 9)
        raw.send(text[10:20], CONTINUATION + MORE)
        raw.send(text[20:], CONTINUATION)

        assert await raw.next() == (10, b"between")
        assert (await raw.text())["id"] == 7
        raw.send(text)
        assert (await raw.text())["id"] == 7


@pytest.mark.parametrize(
    "frames",
    [
        [(BINARY, b"{}")],
        [(BINARY + MORE, b"{}")],
        [(TEXT, b"\xff")],
        [(TEXT, b"[]")],
        [(TEXT, b"{")],
        [(CONTINUATION, challenge())],
        [(TEXT + MORE, challenge()[:9]), (TEXT, challenge())],
        [(TEXT + MORE, b""), (TEXT + MORE, b"")],
        [(TEXT + MORE, challenge()[:9]), (BINARY, b"")],
        [(TEXT, challenge(MAX_FRAME_BYTES - len(challenge()) + 1))],
        [(TEXT + MORE, b" " * 60_000), (CONTINUATION, b" " * 5_537)],
    ],
)
async def test_what_is_no_frame_of_ours_is_closed_with_4501_and_the_reason(
    platform: Platform, frames: list[tuple[int, bytes]]
) -> None:
    async with bare(platform.gateway_url) as raw:
        for opcode, payload in frames:
            raw.send(payload, opcode)
        opcode, payload = await raw.next()

        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, 4501)
        assert len(payload) > 20


async def test_a_frame_of_just_64_kib_passes_and_a_huge_one_is_closed_before_it_is_whole(platform: Platform) -> None:
    async with dialled(platform.gateway_url) as raw:
        fitting = challenge(MAX_FRAME_BYTES - len(challenge()))
        assert len(fitting) == MAX_FRAME_BYTES
        await raw.socket.send(fitting.decode())
        assert (await raw.next())["id"] == 7
        await raw.socket.send("x" * (200 * 1024))
        assert await raw.closed() == 4501
    async with dialled(platform.gateway_url) as raw:
        with suppress(ConnectionClosed):
            await raw.socket.send("x" * (8 * 1024 * 1024))
        assert await raw.closed() == 1009


async def test_one_that_is_closed_while_it_still_sends_is_told_the_code(platform: Platform) -> None:
    async with bare(platform.gateway_url) as raw:
        raw.send(b"{}", BINARY)
        for _ in range(100):
            raw.send(b" " * 60_000, TEXT)
        await raw.writer.drain()

        assert await raw.closed() == 4501


async def test_a_wrong_command_is_answered_under_its_id_and_a_wrong_push_without(platform: Platform) -> None:
    async with dialled(platform.gateway_url) as raw:
        for text, id in [
            ('{"id":5,"fly":{}}', 5),
            ('{"id":5}', 5),
            ('{"fly":{}}', None),
            ('{"challenge":{"tenant_id":"","agent_id":""}}', None),
        ]:
            await raw.socket.send(text)
            answer = await raw.next()
            assert (answer.get("id"), answer["error"]["code"]) == (id, "bad_command")
        assert "challenge" in await raw.ask("challenge", tenant_id="t", agent_id="a")


@pytest.mark.parametrize(
    ("sent", "answered"), [(b"", 1000), ((1000).to_bytes(2, "big"), 1000), ((4321).to_bytes(2, "big"), 4321)]
)
async def test_a_close_is_answered_with_a_close(platform: Platform, sent: bytes, answered: int) -> None:
    async with bare(platform.gateway_url) as raw:
        raw.send(sent, CLOSE)

        assert await raw.closed() == answered
        async with asyncio.timeout(5):
            assert await raw.reader.read() == b""


# --- readers that are slow ------------------------------------------------------------------------------------------------


async def flood(it: House, messages: int = 400) -> list[int]:
    """Some 12 MB, more than the buffers of two sockets hold."""
    data = b'"%b"' % (b"x" * 30_000)
    async with asyncio.TaskGroup() as group:
        storing = [group.create_task(it.publish(data)) for _ in range(messages)]
    return sorted(task.result() for task in storing)


async def seqs_of(raw: Raw, count: int) -> list[int]:
    return [(await raw.message())["seq"] for _ in range(count)]


async def test_a_slow_reader_keeps_nobody_waiting_and_gets_everything_in_order_when_it_reads(tmp_path: Path) -> None:
    async with house(tmp_path) as it, it.bare() as slow, it.connected() as fast:
        slow.reader._transport.pause_reading()  # type: ignore[attr-defined]  # StreamReader has no public way to stop reading
        stored = await flood(it)
        assert await seqs_of(fast, 400) == stored
        await until(lambda: any(each.is_paused for each in it.gateway.connections()))
        waiting = sum(each.waiting_bytes() for each in it.gateway.connections())
        assert waiting < 3 * 1024 * 1024

        slow.reader._transport.resume_reading()  # type: ignore[attr-defined]  # as above
        got = [await slow.text() for _ in stored]
        assert [frame["message"]["seq"] for frame in got] == stored
        assert [frame["message"]["prev"] for frame in got] == [None, *stored[:-1]]
        # And it is level again: what comes now comes to both.
        (last,) = await flood(it, 1)
        assert (await slow.text())["message"]["seq"] == last
        assert (await fast.message())["seq"] == last


async def test_one_that_reads_nothing_while_messages_wait_is_closed_with_4008_and_loses_nothing(tmp_path: Path) -> None:
    async with house(tmp_path, stall_s=0.2) as it:
        async with it.bare() as stuck, it.connected() as fast:
            stuck.reader._transport.pause_reading()  # type: ignore[attr-defined]  # StreamReader has no public way to stop reading
            stored = await flood(it)
            assert await seqs_of(fast, 400) == stored
            await until(lambda: len(it.gateway.connections()) == 1 or any(each.is_closed for each in it.gateway.connections()))
            stuck.reader._transport.resume_reading()  # type: ignore[attr-defined]  # as above
            assert await stuck.closed() == 4008
        async with it.connected() as again:
            assert await seqs_of(again, 400) == stored


async def test_one_that_asks_and_never_reads_the_answers_is_not_heard_until_it_does(tmp_path: Path) -> None:
    async with house(tmp_path) as it, it.bare() as rude, it.connected() as other:
        rude.reader._transport.pause_reading()  # type: ignore[attr-defined]  # StreamReader has no public way to stop reading
        commands = 40_000
        for id in range(commands):
            rude.send({"id": id, "unsubscribe": {"channel": "chn_none"}})
            if id % 1000 == 0:
                await asyncio.sleep(0)
        await until(lambda: any(each.is_paused for each in it.gateway.connections()))
        assert await other.is_quiet()
        assert sum(each.waiting_bytes() for each in it.gateway.connections()) < 2 * 1024 * 1024

        rude.reader._transport.resume_reading()  # type: ignore[attr-defined]  # as above
        async with asyncio.timeout(20):
            for id in range(commands):
                assert (await rude.text())["id"] == id
