from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed

from artcafe.wire.frames import MAX_FRAME_BYTES
from tests.gateway.raw_client import open_client, open_socket
from tests.platform import Platform

TEXT, CONTINUATION, BINARY, CLOSE, MORE = 1, 0, 2, 8, -0x80
"""Opcodes (RFC 6455, section 5.2). Adding MORE clears the FIN bit."""


def challenge(padding: int = 0) -> bytes:
    return json.dumps({"id": 7, "challenge": {"tenant_id": "t" * (1 + padding), "agent_id": "a"}}).encode()


async def test_frame_may_arrive_in_fragments_with_pings_between_them(platform: Platform) -> None:
    async with open_socket(platform.gateway_url) as raw:
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
async def test_invalid_frame_is_closed_with_4501_and_the_reason(platform: Platform, frames: list[tuple[int, bytes]]) -> None:
    async with open_socket(platform.gateway_url) as raw:
        for opcode, payload in frames:
            raw.send(payload, opcode)
        opcode, payload = await raw.next()

        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, 4501)
        assert len(payload) > 20


async def test_frame_of_64_kib_passes_and_a_huge_one_is_closed_before_it_is_complete(platform: Platform) -> None:
    cast = await platform.tenant_with()
    async with open_client(platform.gateway_url) as raw:
        await raw.login(cast.tenant, cast.agents[0], cast.keys[0])
        fitting = challenge(MAX_FRAME_BYTES - len(challenge()))
        assert len(fitting) == MAX_FRAME_BYTES
        await raw.socket.send(fitting.decode())
        assert (await raw.next())["error"]["code"] == "bad_command"  # refused for the length of its field
        await raw.socket.send("x" * (200 * 1024))
        assert await raw.closed() == 4501
    async with open_client(platform.gateway_url) as raw:
        await raw.login(cast.tenant, cast.agents[0], cast.keys[0])
        with suppress(ConnectionClosed):
            await raw.socket.send("x" * (8 * 1024 * 1024))
        assert await raw.closed() == 1009


async def test_peer_that_is_still_sending_reads_the_close_code(platform: Platform) -> None:
    async with open_socket(platform.gateway_url) as raw:
        raw.send(b"{}", BINARY)
        for _ in range(100):
            raw.send(b" " * 60_000, TEXT)
        await raw.writer.drain()

        assert await raw.closed() == 4501


async def test_invalid_command_is_answered_with_its_id_and_invalid_ack_without(platform: Platform) -> None:
    async with open_client(platform.gateway_url) as raw:
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
async def test_close_frame_is_answered_with_a_close_frame(platform: Platform, sent: bytes, answered: int) -> None:
    async with open_socket(platform.gateway_url) as raw:
        raw.send(sent, CLOSE)

        assert await raw.closed() == answered
        async with asyncio.timeout(20):
            assert await raw.reader.read() == b""
