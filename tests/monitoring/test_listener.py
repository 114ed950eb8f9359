"""The listener of `/metrics`: what it answers, and what it refuses to hold open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from artcafe.monitoring.listener import MAX_CONNECTIONS, MetricsListener
from artcafe.rest.heads import MAX_HEAD_BYTES

TEXT = b"# HELP artcafe_up Up.\n"
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Served:
    """A listener, its port, and how often it has rendered."""

    port: int
    listener: MetricsListener
    rendered: list[int] = field(default_factory=list)

    async def ask(self, request: bytes) -> bytes:
        """Return everything that the listener sends until it closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Served]]:
    """Start listeners with a deadline and a text of the test's own."""
    async with asyncio.TaskGroup() as group:
        running = []

        def start(deadline_s: float = 30.0, text: bytes = TEXT) -> Served:
            socket_ = socket.create_server(("127.0.0.1", 0))
            rendered: list[int] = []

            def render() -> bytes:
                rendered.append(1)
                return text

            listener = MetricsListener(socket_, render, deadline_s=deadline_s)
            running.append(group.create_task(listener.run()))
            return Served(socket_.getsockname()[1], listener, rendered)

        yield start
        for task in running:
            task.cancel()


async def test_scrape_is_answered_in_the_text_format_and_the_connection_closed(serve: Callable[..., Served]) -> None:
    head, _, body = (await serve().ask(GET)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    assert b"Connection: close" in head
    assert b"Cache-Control: no-store" in head
    assert body == TEXT


async def test_query_of_a_scrape_is_ignored_and_head_has_no_body(serve: Callable[..., Served]) -> None:
    served = serve()
    assert (await served.ask(b"GET /metrics?name[]=x HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(TEXT)
    head = await served.ask(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", ["/", "/v1/me", "/v1/tenants", "/health/ready", "/metrics/", "/metrics/../v1/me", "//metrics"])
async def test_other_paths_are_answered_404(path: str, serve: Callable[..., Served]) -> None:
    served = serve()
    answer = await served.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert served.rendered == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_answered_405(method: str, serve: Callable[..., Served]) -> None:
    served = serve()
    answer = await served.ask(f"{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".encode())
    assert answer.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert b"Allow: GET, HEAD\r\n" in answer
    assert served.rendered == []


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\nHost: x\n\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nCookie: " + b"c" * MAX_HEAD_BYTES + b"\r\n\r\n", b"413"),
    ],
    ids=["not HTTP", "no host", "bare LF", "folded", "too large"],
)
async def test_malformed_and_too_large_heads_are_refused(request_: bytes, status: bytes, serve: Callable[..., Served]) -> None:
    served = serve()
    answer = await served.ask(request_)
    assert answer.split()[1] == status
    assert served.rendered == []


async def test_connection_that_sends_no_request_is_closed_at_the_deadline(serve: Callable[..., Served]) -> None:
    assert await closed(serve(deadline_s=0.2).port, b"GET /metr") == b""


async def test_peer_that_does_not_read_the_answer_is_closed_at_the_deadline(serve: Callable[..., Served]) -> None:
    served = serve(deadline_s=0.5, text=b"x" * (32 << 20))
    _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1)
    writer.write(GET)
    await gone(served, at_most=0, first=1)
    writer.close()


async def test_more_connections_than_allowed_are_closed_at_once_and_a_free_place_is_used_again(
    serve: Callable[..., Served],
) -> None:
    served = serve()
    held = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(MAX_CONNECTIONS)]
    await gone(served, at_most=MAX_CONNECTIONS, first=MAX_CONNECTIONS)
    with contextlib.suppress(ConnectionError):
        assert await served.ask(GET) == b""
    assert served.rendered == []
    for _, writer in held:
        writer.close()
    await gone(served, at_most=0)
    assert (await served.ask(GET)).endswith(TEXT)


async def test_scrapes_in_quick_succession_are_rendered_once(serve: Callable[..., Served]) -> None:
    served = serve()
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(served.ask(GET)) for _ in range(8)]
    assert all(each.result().endswith(TEXT) for each in answers)
    assert len(served.rendered) < 8


async def closed(port: int, request: bytes) -> bytes:
    """Send bytes, and return what arrives until the listener closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    received = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            received = await reader.read()
    writer.close()
    return received


async def gone(served: Served, *, at_most: int, first: int = 0) -> None:
    """Wait until `first` connections were open, and then until at most so many are."""
    async with asyncio.timeout(10):
        while len(served.listener.open) < first:  # noqa: ASYNC110 (the listener sets no event)
            await asyncio.sleep(0.01)
        while len(served.listener.open) > at_most:  # noqa: ASYNC110 (as above)
            await asyncio.sleep(0.01)
