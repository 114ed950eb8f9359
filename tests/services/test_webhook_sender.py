"""Sending webhooks: names are resolved once, and the connection goes to the address that was checked."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from artcafe.rules.webhook_targets import Address
from artcafe.services.webhook_sender import WebhookAnswer, WebhookSender
from tests.certificates import Authority
from tests.webhook_receiver import receiving

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


class Names:
    """A name server whose answers differ from one question to the next."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), 0

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.asked += 1
        return [ipaddress.ip_address(self.answers.pop(0))]


async def test_connection_goes_to_the_address_that_was_checked_though_the_name_resolves_to_another_one_by_then() -> None:
    with receiving() as receiver:
        names = Names("127.0.0.1", "169.254.169.254")
        port = receiver.url.rpartition(":")[2]
        sender = WebhookSender(LOOPBACK, names)
        assert await sender.send(f"http://rebinding.example.com:{port}/x", {"webhook-id": "whk_1"}, b"{}") == WebhookAnswer()
        assert names.asked == 1
        assert receiver.received[0].headers["host"] == f"rebinding.example.com:{port}"
        second = await sender.send(f"http://rebinding.example.com:{port}/x", {}, b"{}")
        assert second.problem is not None
        assert "169.254.169.254, which is not public" in second.problem
        assert len(receiver.received) == 1


async def test_name_of_this_machine_is_refused_without_a_connection() -> None:
    with receiving() as receiver:
        port = receiver.url.rpartition(":")[2]
        answer = await WebhookSender(()).send(f"https://localhost:{port}/", {}, b"{}")
        assert answer.problem is not None
        assert "localhost has the address" in answer.problem
        assert receiver.received == []


async def test_redirect_is_not_followed() -> None:
    with receiving() as receiver:
        receiver.statuses[:] = [307]
        answer = await WebhookSender(LOOPBACK).send(f"{receiver.url}/here", {}, b"{}")
        assert answer == WebhookAnswer("status 307: redirects are not followed")
        assert [each.path for each in receiver.received] == ["/here"]


@asynccontextmanager
async def speaking(answer: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Run an endpoint that sends this after the head of a request, and waits until the sender closes. Yield its URL."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began.set()
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(speak, "127.0.0.1", 0, ssl=tls) as server, asyncio.timeout(30):
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        if began.is_set():  # Else the machine was too slow to connect within the sender's time.
            await ended.wait()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000, b"nonsense\r\n\r\n"])
async def test_endpoint_that_never_answers_or_answers_without_end_costs_a_bounded_time(answer: bytes) -> None:
    async with speaking(answer) as url:
        assert (await WebhookSender(LOOPBACK, timeout_s=1).send(url, {}, b"{}")).problem is not None


async def test_body_of_the_answer_is_not_read() -> None:
    async with speaking(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n" + b"x" * 1000) as url:
        assert await WebhookSender(LOOPBACK).send(url, {}, b"{}") == WebhookAnswer()


async def test_refused_connection_and_unknown_name_are_problems() -> None:
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
    refused = await WebhookSender(LOOPBACK).send(f"http://127.0.0.1:{port}/", {}, b"{}")
    assert "ConnectError" in (refused.problem or "")

    async def unknown(host: str, port: int) -> Sequence[Address]:
        raise OSError(-2, "Name or service not known")

    answer = await WebhookSender((), unknown).send("https://nowhere.example.com/", {}, b"{}")
    assert answer.problem == "the name cannot be resolved: Name or service not known"


async def test_certificate_must_be_the_hosts_and_not_only_the_addresss(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    made = authority.sign("receiver")  # for localhost and 127.0.0.1
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)

    async with speaking(b"HTTP/1.1 204 No Content\r\n\r\n", context) as url:
        port = url.rpartition(":")[2]
        sender = WebhookSender(LOOPBACK, Names("127.0.0.1", "127.0.0.1"), tls=authority.client())
        refused = await sender.send(f"https://hooks.example.com:{port}", {}, b"{}")
        assert "certificate verify failed" in (refused.problem or "")
        assert await sender.send(f"https://localhost:{port}", {}, b"{}") == WebhookAnswer()
        assert names == ["hooks.example.com", "localhost"]
