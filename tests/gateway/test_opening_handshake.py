"""Bounds of a peer before `connect`: upgrades of proxies and browsers, sizes, numbers of connections, and protocol errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from artcafe.gateway.admission import Admission
from artcafe.gateway.connection import MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES
from artcafe.gateway.opening_handshake import MAX_BYTES_BEFORE_CONNECT
from artcafe.gateway.upgrade_request import MAX_HEAD_BYTES, UpgradeRefused, parse
from artcafe.rules.open_connections import OpenConnections
from artcafe.wire.frames import MAX_FRAME_BYTES
from tests.gateway.gateway_app import gateway_app, until
from tests.gateway.raw_client import BOUND_S, UPGRADE, BareSocket, http_answer, open_client, open_socket
from tests.platform import Platform

CLOSE, TEXT = 8, 1


def changed(**lines: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the upgrade with some headers replaced, repeated, or left out (None)."""
    kept = [line for line in UPGRADE if line.partition(":")[0].lower().replace("-", "_") not in lines]
    for name, value in lines.items():
        values = [] if value is None else [value] if isinstance(value, str) else value
        kept += [f"{name.replace('_', '-')}: {each}" for each in values]
    return tuple(kept)


async def said(url: str, *parts: bytes) -> bytes:
    """Send these bytes, and return the gateway's answer up to the close."""
    at = urlsplit(url)
    async with asyncio.timeout(BOUND_S):
        reader, writer = await asyncio.open_connection(at.hostname, at.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await reader.read()
        finally:
            writer.transport.abort()


def request(target: str = "/v1/connect", lines: Sequence[str] = UPGRADE, first: str = "GET {} HTTP/1.1") -> bytes:
    return "\r\n".join((first.format(target), *lines, "", "")).encode()


# --- upgrades ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        changed(connection="keep-alive, Upgrade"),  # Firefox
        changed(connection=["keep-alive", "upgrade"]),
        changed(connection="Upgrade , HTTP2-Settings"),
        changed(upgrade="h2c, WebSocket"),
        changed(upgrade=["h2c", "websocket"]),
        changed(content_length="0"),
        changed(cookie="c=" + "x" * 12_000),
    ],
)
async def test_upgrade_with_list_headers_is_accepted(platform: Platform, lines: tuple[str, ...]) -> None:
    at = urlsplit(platform.gateway_url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    async with asyncio.timeout(BOUND_S):
        for part in request(lines=lines).splitlines(keepends=True):
            writer.write(part)  # in parts, like a slow peer
            await writer.drain()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        raw = BareSocket(reader, writer)
        raw.send({"id": 1, "challenge": {"tenant_id": "t", "agent_id": "a"}})
        assert "challenge" in await raw.text()
    writer.transport.abort()


@pytest.mark.parametrize("target", ["http://gateway.example/v1/connect", "WSS://gateway.example:8081/v1/connect"])
async def test_target_in_absolute_form_is_read_as_its_path(platform: Platform, target: str) -> None:
    answer = await said(platform.gateway_url, request(target, changed(sec_websocket_protocol=None)))
    assert b"Offer the subprotocol" in answer  # the path was accepted
    assert parse(request(target).removesuffix(b"\r\n\r\n")).host.startswith("gateway.example")


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (request(lines=changed(sec_websocket_version="8")), 426, "\r\nSec-WebSocket-Version: 13\r\n"),
        (request(lines=changed(sec_websocket_version=None)), 426, "\r\nUpgrade: websocket\r\n"),
        (request(lines=changed(connection="close")), 426, "This is a WebSocket"),
        (request(lines=changed(sec_websocket_key="short")), 400, "Sec-WebSocket-Key"),
        (request(lines=changed(host=None)), 400, "Host"),
        (request(lines=changed(host=["a", "b"])), 400, "Host"),
        (request(lines=changed(content_length="1")), 400, "no body"),
        (request(lines=changed(transfer_encoding="chunked")), 400, "no body"),
        (request(first="POST {} HTTP/1.1"), 405, "\r\nAllow: GET\r\n"),
        (request(first="GET {} HTTP/1.0"), 505, "HTTP/1.1"),
        (request(lines=(*UPGRADE, "X: y\r\n folded")), 400, "no header"),
        (request(lines=(*UPGRADE, "X: y\nInjected: z")), 400, "no header"),
        (request(lines=(*UPGRADE, "X : y")), 400, "no header"),
        (request(lines=changed(cookie="c=" + "x" * MAX_HEAD_BYTES)), 431, "larger than 16384 bytes"),
        (b"GET /" + b"x" * 30_000, 431, "larger than 16384 bytes"),
        (b"hello\r\n\r\n", 400, "no request of HTTP/1.1"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "no request of HTTP/1.1"),
    ],
)
async def test_refused_requests_get_a_plain_text_answer_with_security_headers(
    platform: Platform, sent: bytes, status: int, words: str
) -> None:
    answer = (await said(platform.gateway_url, sent)).decode()
    head = answer.partition("\r\n\r\n")[0]
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert words in answer
    assert "\r\nX-Content-Type-Options: nosniff" in head
    assert "\r\nContent-Security-Policy: default-src 'none'" in head


@pytest.mark.parametrize(
    ("origin", "host", "is_welcome"),
    [
        (None, "evil.example", True),
        ("http://evil.example", "evil.example:8081", False),  # DNS rebinding: a foreign name resolved to this address
        ("http://artcafe.example", "artcafe.example:8081", True),
        ("https://artcafe.example:3000", "artcafe.example", True),
        ("https://app.example", "evil.example", True),
        ("http://localhost:3000", "localhost:8081", True),
        ("http://192.0.2.1", "192.0.2.1:8081", True),
        ("http://[2001:db8::1]", "[2001:db8::1]:8081", True),
        ("http://192.0.2.2", "192.0.2.1:8081", False),
        ("null", "null", False),
    ],
)
def test_page_of_the_same_host_is_allowed_only_if_the_host_is_the_gateways(
    origin: str | None, host: str, is_welcome: bool
) -> None:
    admission = Admission(origins=["https://app.example"], hosts=["artcafe.example"])
    assert admission.origins.is_allowed([] if origin is None else [origin], host) is is_welcome


async def test_refused_origin_is_logged_once_a_minute(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        with capture_logs() as logs:
            for _ in range(3):
                answer = await http_answer(it.url, lines=changed(origin="https://evil.example"))
                assert answer.startswith("HTTP/1.1 403 ")
        (line,) = [each for each in logs if each["event"] == "gateway.origin_refused"]
        assert (line["origins"], line["count"]) == (["https://evil.example"], 1)


def test_any_request_head_is_parsed_or_refused() -> None:
    whole = request().removesuffix(b"\r\n\r\n")
    for at in range(len(whole)):
        for byte in (b"", b"\0", b"\n", b"\r", b":", b" ", b"\xff", b"http://"):
            with contextlib.suppress(UpgradeRefused):
                parse(whole[:at] + byte + whole[at + 1 :])


# --- sizes ---------------------------------------------------------------------------------------------------------------


async def test_incomplete_frame_is_limited_to_8_kib_before_connect_and_64_kib_afterwards(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        async with open_socket(it.url) as raw:
            raw.writer.write(b"\x81\xfe\xff\xff" + bytes(4) + b" " * MAX_BYTES_BEFORE_CONNECT)
            assert await raw.closed() == 4501
        async with open_socket(it.url) as raw:
            raw.send({"id": 1, "challenge": {"tenant_id": "t" * 1000, "agent_id": "a" * 1000}})
            assert "challenge" in await raw.text()
            raw.send({"id": 2, "connect": {"access_token": it.token()}})
            # After connect, before its reply, frames of any size are accepted.
            data = "x" * (MAX_FRAME_BYTES - 200)
            for id in range(3, 6):
                raw.send({"id": id, "publish": {"channel": it.channel.id, "data": data}})
            seen: set[int] = set()
            while len(seen) < 4:
                frame = await raw.text()
                assert "error" not in frame
                seen |= {frame["id"]} if "id" in frame else set()


@pytest.mark.parametrize("ahead", [b"", json.dumps({"id": 1, "challenge": {"tenant_id": "t", "agent_id": "a"}}).encode()])
async def test_frames_sent_together_with_the_upgrade_are_answered(platform: Platform, ahead: bytes) -> None:
    at = urlsplit(platform.gateway_url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    frame = bytes([0x81, 0x80 | len(ahead)]) + bytes(4) + ahead if ahead else b""
    async with asyncio.timeout(BOUND_S):
        writer.write(request() + frame + b"\x89\x80" + bytes(4))
        await reader.readuntil(b"\r\n\r\n")
        raw = BareSocket(reader, writer)
        opcodes = {(await raw.next())[0] for _ in range(2 if ahead else 1)}
        assert opcodes == ({TEXT, 10} if ahead else {10})
    writer.transport.abort()


async def test_socket_is_not_read_while_1_mib_of_its_commands_waits(tmp_path: Path) -> None:
    async with gateway_app(tmp_path, has_proxy=True) as it, it.connected_socket() as raw:
        assert it.proxy is not None
        await it.publish(b"0")  # opens the connection to NATS
        it.proxy.stick()
        count, size = 60, 60_000
        for id in range(count):
            raw.send({"id": id, "publish": {"channel": it.channel.id, "data": "x" * size}})
        (connection,) = it.gateway.connections()
        await until(lambda: not connection.is_reading)
        assert MAX_IN_FLIGHT_BYTES < connection._in_flight_bytes < MAX_IN_FLIGHT_BYTES + 2 * MAX_FRAME_BYTES
        assert connection._in_flight < MAX_IN_FLIGHT  # limited by bytes, not by number
        it.proxy.cut()
        answered: set[int] = set()
        while len(answered) < count:
            frame = await raw.text()
            if "id" in frame:
                answered.add(frame["id"])
        assert connection.is_reading
        assert connection._in_flight_bytes == 0


async def test_too_long_field_is_refused_before_the_command_is_done(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        long = "x" * 8193
        for kind, body in (
            ("history", {"channel": long}),
            ("history", {"channel": "c", "after": long}),
            ("subscribe", {"channel": long}),
            ("unsubscribe", {"channel": long}),
            ("status", {"status": long}),
            ("publish", {"channel": long, "data": 1}),
            ("challenge", {"tenant_id": long, "agent_id": "a"}),
            ("watch", {"channel": long}),
            ("connect", {"access_token": long * 2}),
        ):
            assert (await raw.ask(kind, **body))["code"] == "bad_command", kind


# --- numbers of connections ----------------------------------------------------------------------------------------------


async def test_sockets_and_silent_connections_are_counted_by_address(tmp_path: Path) -> None:
    connections = OpenConnections(most=100, most_per_address=3)
    async with gateway_app(tmp_path, connections=connections) as it:
        at = urlsplit(it.url)
        async with it.connected() as raw:
            _, silent = await asyncio.open_connection(at.hostname, at.port)
            _, half = await asyncio.open_connection(at.hostname, at.port)
            half.write(b"GET ")
            await until(lambda: connections.count == 3)
            refused = (await said(it.url)).decode()
            assert refused.startswith("HTTP/1.1 429 ")
            assert "too many open connections from this address" in refused
            assert await raw.is_quiet()
            silent.close()
            await until(lambda: connections.count == 2)
            async with open_client(it.url):
                assert connections.count == 3
            half.close()
        await until(lambda: connections.count == 0)


# --- protocol errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0x40, 0x20, 0x10, 0x70])
@pytest.mark.parametrize("opcode", [TEXT, 2, 9])
async def test_reserved_bits_are_closed_with_1002(platform: Platform, bits: int, opcode: int) -> None:
    async with open_socket(platform.gateway_url) as raw:
        raw.send(b"{}", opcode + bits)
        assert await raw.closed() == 1002


@pytest.mark.parametrize("sent", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535])
async def test_close_code_not_allowed_in_a_frame_is_answered_with_1002(platform: Platform, sent: int) -> None:
    async with open_socket(platform.gateway_url) as raw:
        raw.send(sent.to_bytes(2, "big"), CLOSE)
        assert await raw.closed() == 1002


@pytest.mark.parametrize("sent", [1001, 1011, 3000, 4999])
async def test_any_other_close_code_is_answered_with_the_same_code(platform: Platform, sent: int) -> None:
    async with open_socket(platform.gateway_url) as raw:
        raw.send(sent.to_bytes(2, "big"), CLOSE)
        assert await raw.closed() == sent


BROKEN = {"opcode": b"\x83\x80" + bytes(4), "unmasked": b"\x81\x02{}", "long ping": b"\x89\xfe\x00\x7e" + bytes(130)}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("is_proven", [False, True])
async def test_nothing_is_sent_after_the_close_for_an_unparsable_frame(tmp_path: Path, broken: bytes, is_proven: bool) -> None:
    async with gateway_app(tmp_path) as it, it.connected_socket() if is_proven else open_socket(it.url) as raw:
        command = json.dumps({"id": 9, "challenge": {"tenant_id": "t", "agent_id": "a"}}).encode()
        with capture_logs() as logs:
            raw.writer.write(bytes([0x81, 0x80 | len(command)]) + bytes(4) + command + broken + bytes(100_000))
            seen: list[tuple[int, bytes]] = []
            while not seen or seen[-1][0] != CLOSE:
                seen.append(await raw.next())
            assert int.from_bytes(seen[-1][1][:2], "big") == 1002
            async with asyncio.timeout(BOUND_S):
                with contextlib.suppress(ConnectionResetError):  # closed with unread bytes
                    assert await raw.reader.read() == b""
        await until(lambda: not it.gateway.connections())
        assert [each["event"] for each in logs].count("gateway.not_websocket") == 1


async def test_unparsable_frames_of_many_sockets_are_logged_in_one_line(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        with capture_logs() as logs:
            for _ in range(5):
                async with open_socket(it.url) as raw:
                    raw.writer.write(BROKEN["opcode"])
                    assert await raw.closed() == 1002
                async with open_socket(it.url) as raw:
                    raw.send(b"[]")
                    assert await raw.closed() == 4501
        assert [each["event"] for each in logs if each["log_level"] != "info"] == ["gateway.not_websocket", "gateway.closed"]
        closed = logs[-1] if logs[-1]["event"] == "gateway.closed" else next(e for e in logs if e["event"] == "gateway.closed")
        assert (closed["code"], closed["close"], closed["address"]) == ("bad_frame", 4501, "127.0.0.1")


async def test_lone_surrogate_refuses_one_command_and_keeps_the_socket_open(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        for data in (r'"\ud800"', r'"\udc00\ud800"', r'["\\\ud800", {"\udfff": 1}]'):
            await raw.socket.send(f'{{"id":77,"publish":{{"channel":"{it.channel.id}","data":{data}}}}}')
            answer = await raw.next()
            assert (answer["id"], answer["error"]["code"]) == (77, "bad_command")
        for data in (r'"\ud83d\ude00"', r'"\\ud800"'):  # a pair, and a backslash before a u
            await raw.socket.send(f'{{"id":78,"publish":{{"channel":"{it.channel.id}","data":{data}}}}}')
            while "id" not in (answer := await raw.next()):
                pass
            assert "publish" in answer
        await raw.socket.send(r'{"id":79,"publish":{"channel":"c","data":NaN,"key":"\ud800"}}')
        assert await raw.closed() == 4501
