"""REST and the gateway against peers that send too much, never finish, or only hold a connection: they are refused, and other
peers do not wait."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from artcafe.errors import TooLarge
from artcafe.rest.bodies import DISCARD_BYTES, SMALL_BODY_BYTES
from artcafe.rules.open_connections import capacity
from artcafe.sdk.agent import Agent
from artcafe.sdk.keys import load_signer
from artcafe.wire.frames import MAX_DEPTH
from tests.gateway.raw_client import UPGRADE, open_client
from tests.platform import Cast, Platform, running

BOUND_S = 10
SHELLS_LIMIT = 1024
"""The limit of open files per process on many systems."""
HALF_OPEN = 500

POST = b"POST /v1/auth/challenges HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNK = b"10000\r\n" + b" " * 0x10000 + b"\r\n"


@contextmanager
def few_files() -> Iterator[None]:
    """Limit the open files of processes started within, unless they raise the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(SHELLS_LIMIT, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft if soft > SHELLS_LIMIT else hard, hard))


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    at = urlsplit(url)
    async with asyncio.timeout(BOUND_S):
        reader, writer = await asyncio.open_connection(at.hostname, at.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def sent_until_closed(url: str, head: bytes, piece: bytes, most: int) -> int:
    """Send a request without end until the server closes the connection; return the number of bytes sent."""
    async with wire(url) as (_, writer), asyncio.timeout(BOUND_S):
        writer.write(head)
        sent = 0
        try:
            while sent < most:
                writer.write(piece)
                sent += len(piece)
                await writer.drain()
        except OSError:
            return sent
    pytest.fail(f"all {most} bytes were taken")


async def log_in_and_publish(cast: Cast) -> None:
    """Log an agent in over REST and on the socket, publish and receive."""
    async with asyncio.timeout(BOUND_S):
        async with cast.rest() as rest:
            assert (await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))).expires_in == 900
        async with Agent(cast.url, tenant=cast.tenant, agent=cast.agents[0], key=cast.keys[0]) as agent:
            assert (await agent.publish(cast.channels[0], 1)).seq is not None


async def test_five_hundred_half_open_connections_on_each_listener_delay_no_login(tmp_path: Path) -> None:
    with few_files(), running(tmp_path) as platform:
        cast = await platform.tenant_with()
        half = (b"", POST, POST + b"Content-Length: 9\r\n\r\n{")
        upgrade = "\r\n".join(["GET /v1/connect HTTP/1.1", *UPGRADE, "", ""]).encode()
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2
        )  # the test's limit, not the server's
        async with AsyncExitStack() as open_ones:
            for number in range(HALF_OPEN):
                _, writer = await open_ones.enter_async_context(wire(platform.url))
                writer.write(half[number % len(half)])
                _, writer = await open_ones.enter_async_context(wire(platform.gateway_url))
                writer.write((b"", upgrade[:40], upgrade)[number % 3])
            await log_in_and_publish(cast)
        assert "Too many open files" not in platform.log()


# --- who holds all connections -------------------------------------------------------------------------------------------

DESCRIPTORS = 256


async def dial_from(open_: AsyncExitStack, source: str, url: str, count: int) -> int:
    """Open connections from a loopback address and send nothing; return the number that was not refused."""
    at = urlsplit(url)
    wires = [await asyncio.open_connection(at.hostname, at.port, local_addr=(source, 0)) for _ in range(count)]
    for _, writer in wires:
        open_.callback(end, writer)
    async with asyncio.TaskGroup() as group:
        kept = [group.create_task(receives_nothing(reader)) for reader, _ in wires]
    return sum(each.result() for each in kept)


def end(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def receives_nothing(reader: asyncio.StreamReader) -> bool:
    """Return whether nothing arrives for a moment. Refused connections are answered and closed."""
    try:
        async with asyncio.timeout(1):
            await reader.read(1)
    except TimeoutError:
        return True
    except OSError:
        pass
    return False


async def status_from(source: str, url: str, path: str) -> int:
    """Return the status of an answer. Of many connections refused at once, only some get an answer; the others are reset."""
    async with asyncio.timeout(BOUND_S):
        while True:
            with suppress(ConnectionResetError):
                return await asked_from(source, url, path)
            await asyncio.sleep(0.1)


async def asked_from(source: str, url: str, path: str) -> int:
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port, local_addr=(source, 0))
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        if not answer:  # a reset, as seen by a peer that has already sent its request
            raise ConnectionResetError
        return int(answer.split()[1])
    finally:
        end(writer)


async def test_no_address_can_hold_all_connections_and_health_and_nats_keep_working(tmp_path: Path) -> None:
    most = capacity(DESCRIPTORS)
    with running(tmp_path, descriptors=DESCRIPTORS) as platform:
        cast = await platform.tenant_with()
        async with AsyncExitStack() as open_, cast.agent() as agent:
            assert (await agent.publish(cast.channels[0], 1)).seq is not None
            held = 0
            for url in (platform.url, platform.gateway_url):
                held += await dial_from(open_, "127.0.0.2", url, most // 2)
            assert held == most // 2  # on both listeners together
            assert [await status_from("127.0.0.3", platform.url, "/v1") for _ in range(18)] == [200] * 18
            assert await status_from("127.0.0.2", platform.url, "/v1") == 429

            for source in ("127.0.0.3", "127.0.0.4"):
                await dial_from(open_, source, platform.gateway_url, most // 2)
            assert await status_from("127.0.0.5", platform.url, "/v1") == 503
            assert await status_from("127.0.0.5", platform.gateway_url, "/v1/connect") == 503
            assert await status_from("127.0.0.5", platform.url, "/health/ready") == 200
            # The connection that was open before continues, and a nats-server that answers is not restarted.
            assert (await agent.publish(cast.channels[0], 2)).seq is not None
        assert await until_served(platform) == 200
        log = platform.log()
        assert "nats.failed" not in log
        assert "Too many open files" not in log


async def until_served(platform: Platform) -> int:
    """Return the status of the first answer after the other connections have closed."""
    async with asyncio.timeout(BOUND_S):
        while (status := await status_from("127.0.0.5", platform.url, "/v1")) == 503:  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0.05)
    return status


# --- what is too long ----------------------------------------------------------------------------------------------------


async def test_body_of_300_mb_is_refused_at_the_limit_with_or_without_content_length(platform: Platform) -> None:
    size = 300_000_000
    announced = POST + b"Content-Length: %d\r\n\r\n" % size
    for head, piece in ((announced, b" " * 0x10000), (POST + b"Transfer-Encoding: chunked\r\n\r\n", CHUNK)):
        # The bytes beyond what is dropped are in the kernel's buffers, which hold some megabytes.
        assert await sent_until_closed(platform.url, head, piece, size) < DISCARD_BYTES + (16 << 20)
    async with wire(platform.url) as (reader, writer), asyncio.timeout(BOUND_S):
        writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK * 4)
        await writer.drain()
        writer.write(b"1\r\nx\r\n")  # the first byte above the limit
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413 ")
        assert json.loads(body)["detail"] == str(TooLarge("the request's body", SMALL_BODY_BYTES))


async def test_endless_head_is_refused_on_both_listeners(platform: Platform) -> None:
    for url, path in ((platform.url, "/v1"), (platform.gateway_url, "/v1/connect")):
        begun = f"GET {path} HTTP/1.1\r\nHost: x\r\n".encode()
        for line in (b"X-Long: " + b"x" * 0x10000, b"X: y\r\n" * 10_000):
            assert await sent_until_closed(url, begun, line, 64 << 20) < 16 << 20


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


async def test_json_is_accepted_with_32_levels_and_refused_with_33_on_both_listeners(platform: Platform) -> None:
    cast = await platform.tenant_with()
    (channel,) = cast.channels
    async with cast.rest() as rest, open_client(platform.gateway_url) as raw:
        token = (await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))).access_token
        await raw.ask("connect", access_token=token)
        await raw.ask("unsubscribe", channel=channel)
        path = f"/v1/tenants/{cast.tenant}/channels/{channel}/messages"
        for depth, is_taken in ((MAX_DEPTH, True), (MAX_DEPTH + 1, False), (500, False)):
            await raw.socket.send(f'{{"id":99,"publish":{{"channel":"{channel}","data":{nested(depth)}}}}}')
            answer = await raw.next()
            status = await status_of_post(platform, path, cast.token, f'{{"data":{nested(depth)}}}')
            assert (answer.get("error", {}).get("code"), status) == ((None, 201) if is_taken else ("invalid", 422))
        assert await status_of_post(platform, path, cast.token, f'{{"data":{nested(30_000)}}}') == 422
        await raw.socket.send(f'{{"id":99,"publish":{{"channel":"{channel}","data":{nested(30_000)}}}}}')
        assert await raw.closed() == 4501  # too deep to be read to its end


@pytest.mark.parametrize("number", ["1e999", "-1E+999", "9" * 5000])
async def test_number_beyond_a_double_is_refused_on_both_listeners_and_readers_continue(platform: Platform, number: str) -> None:
    cast = await platform.tenant_with()
    (channel,) = cast.channels
    async with cast.rest() as rest, open_client(platform.gateway_url) as raw:
        token = (await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))).access_token
        await raw.ask("connect", access_token=token)
        await raw.socket.send(f'{{"id":99,"publish":{{"channel":"{channel}","data":{{"a":[{number}]}}}}}}')
        answer = (await raw.next())["error"]
        assert (answer["code"], answer["temporary"]) == ("invalid", False)
        assert "data: has a number beyond 1.8e308" in answer["message"]
        path = f"/v1/tenants/{cast.tenant}/channels/{channel}/messages"
        assert await status_of_post(platform, path, cast.token, f'{{"data":{number}}}') == 422
        await raw.ask("publish", channel=channel, data="1e999")
        message = await raw.next()
        assert message["message"]["data"] == "1e999"


async def status_of_post(platform: Platform, path: str, token: str, body: str) -> int:
    """Return the status of the answer to a body, sent unchanged."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    async with wire(platform.url) as (reader, writer), asyncio.timeout(BOUND_S):
        writer.write((head + body).encode())
        return int((await reader.readline()).split()[1])
