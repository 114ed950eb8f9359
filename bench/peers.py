"""The cost of one peer for the server: bytes and requests in; bytes out, processor time and memory of the server.

Each row is an attack from loopback on a separate `artcafe up`, bounded in number and time. Nothing else uses that server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlsplit

from artcafe.sdk.keys import load_signer
from artcafe.wire.frames import SUBPROTOCOL
from artcafe.wire.ssh_bytes import mpint, string
from artcafe.wire.sshsig import armor
from bench.raw_client import masked
from bench.report import Options, Table, cpu_seconds
from tests.platform import Cast, Platform, running

BOUND_S: Final = 30.0
REQUESTS: Final = 10
LOGINS: Final = 100
UNFINISHED: Final = 1000
SOCKETS: Final = 20
NOISE: Final = 200
BODY_BYTES: Final = 256 * 1024

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]
UPGRADE: Final = (
    "GET /v1/connect HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
).encode()


class Spent:
    """The cost of one attack: the peer's bytes, and the server's bytes, processor time and memory."""

    def __init__(self, platform: Platform) -> None:
        assert platform.process is not None
        self._pid = platform.process.pid
        self._cpu, self._memory = cpu_seconds(self._pid), memory(self._pid)
        self.sent = self.answered = 0

    def row(self, name: str, count: int) -> tuple[str, ...]:
        """Return the cost since the beginning, for each of `count` attempts."""
        cpu_ms = (cpu_seconds(self._pid) - self._cpu) * 1000 / count
        held = (memory(self._pid) - self._memory) / 2**20
        return (
            name,
            f"{count:,}",
            f"{self.sent / count:,.0f}",
            f"{self.answered / count:,.0f}",
            f"{cpu_ms:.1f}",
            f"{held:,.0f}",
        )


def memory(pid: int) -> int:
    """Return the resident memory of a process, in bytes (proc(5), statm)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def open_connection(url: str) -> AsyncIterator[Wire]:
    """Open a connection, and abort it at the end of the block."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(spent: Spent, url: str, head: str, body: bytes = b"") -> bytes:
    """Send one request on a new connection; return the answer, or nothing if the connection was reset."""
    request = f"{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    answer = b""
    with contextlib.suppress(OSError):
        async with asyncio.timeout(BOUND_S), open_connection(url) as (reader, writer):
            writer.write(request)
            answer = await reader.read()
    spent.sent += len(request)
    spent.answered += len(answer)
    return answer


# --- requests that cost more than they take to send ----------------------------------------------------------------------


async def unknown_fields(spent: Spent, platform: Platform, _cast: Cast) -> int:
    """Send objects of 27,000 fields that no route knows."""
    body = ("{" + ",".join(f'"{number}":1' for number in range(27_000)) + "}").encode()[: BODY_BYTES - 1] + b"}"
    body = body[: body.rfind(b",")] + b"}"
    for _ in range(REQUESTS):
        await ask(spent, platform.url, "POST /v1/auth/challenges HTTP/1.1", body)
    return REQUESTS


async def wrong_items(spent: Spent, platform: Platform, cast: Cast) -> int:
    """Send lists of 125,000 numbers in place of strings."""
    head = f"POST /v1/tenants/{cast.tenant}/agents HTTP/1.1\r\nAuthorization: Bearer {cast.token}"
    body = b'{"capabilities":[' + b",".join([b"1"] * 125_000) + b"]}"
    for _ in range(REQUESTS):
        await ask(spent, platform.url, head, body)
    return REQUESTS


async def parameters(spent: Spent, platform: Platform, cast: Cast) -> int:
    """Send 9,000 query parameters that no list knows."""
    query = "&".join(f"{number}=" for number in range(9000))
    head = f"GET /v1/tenants/{cast.tenant}/agents?{query} HTTP/1.1\r\nAuthorization: Bearer {cast.token}"
    for _ in range(REQUESTS):
        await ask(spent, platform.url, head)
    return REQUESTS


async def refused_logins(spent: Spent, platform: Platform, cast: Cast) -> int:
    """Log in with an unregistered key, whose long exponent makes verification slow."""
    modulus = secrets.randbits(8192) | 1 | 1 << 8191
    key = string(b"ssh-rsa") + mpint(2**63 + 1) + mpint(modulus)
    signature = armor(key, string(b"rsa-sha2-512") + string(b"\0" + secrets.token_bytes(1023)), "artcafe", "sha512")
    claim = json.dumps({"tenant_id": cast.tenant, "agent_id": cast.agents[0]}).encode()
    count = 0
    for _ in range(LOGINS):
        answer = await ask(spent, platform.url, "POST /v1/auth/challenges HTTP/1.1", claim)
        if not answer.startswith(b"HTTP/1.1 201"):
            break  # the rate limit on logins of one agent
        challenge = json.loads(answer.partition(b"\r\n\r\n")[2])["challenge_id"]
        proof = json.dumps({"challenge_id": challenge, "signature": signature}).encode()
        assert (await ask(spent, platform.url, "POST /v1/auth/tokens HTTP/1.1", proof)).startswith(b"HTTP/1.1 401")
        count += 1
    return count


async def noise(spent: Spent, platform: Platform, _cast: Cast) -> int:
    """Send bytes that are not HTTP to REST, and frames that violate the protocol to the gateway. Count bytes of the log as bytes
    answered."""
    before = len(platform.log())
    for number in range(NOISE):
        url, sent = ((platform.url, b"\x16\x03\x01\r\n\r\n"), (platform.gateway_url, UPGRADE + b"\x83\x80\0\0\0\0"))[number % 2]
        with contextlib.suppress(OSError):
            async with asyncio.timeout(BOUND_S), open_connection(url) as (reader, writer):
                writer.write(sent)
                await reader.read()
        spent.sent += len(sent)
    spent.answered = len(platform.log()) - before
    return NOISE


# --- what is held --------------------------------------------------------------------------------------------------------


async def hold(spent: Spent, url: str, sent: bytes) -> tuple[AsyncExitStack, int]:
    """Open connections that send these bytes and no more; return them, still open."""
    stack = AsyncExitStack()
    for _ in range(UNFINISHED):
        with contextlib.suppress(OSError):
            _, writer = await stack.enter_async_context(open_connection(url))
            writer.write(sent)
            spent.sent += len(sent)
    await asyncio.sleep(1)  # until the server has read what it accepts; there is no notification
    return stack, UNFINISHED


async def bodies(spent: Spent, platform: Platform, _cast: Cast) -> tuple[AsyncExitStack, int]:
    """Hold bodies of the maximum length."""
    head = f"POST /v1/auth/challenges HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_BYTES}\r\n\r\n".encode()
    return await hold(spent, platform.url, head + b" " * (BODY_BYTES - 1))


async def small_bodies(spent: Spent, platform: Platform, _cast: Cast) -> tuple[AsyncExitStack, int]:
    """Hold bodies of the maximum length before authentication."""
    head = b"POST /v1/auth/challenges HTTP/1.1\r\nHost: x\r\nContent-Length: 8192\r\n\r\n"
    return await hold(spent, platform.url, head + b" " * 8191)


async def frames(spent: Spent, platform: Platform, _cast: Cast) -> tuple[AsyncExitStack, int]:
    """Hold frames of the maximum length that is refused and not closed."""
    begun = b"\x81\xff" + (BODY_BYTES - 1).to_bytes(8, "big") + bytes(4)
    return await hold(spent, platform.gateway_url, UPGRADE + begun + b" " * (BODY_BYTES - 100))


async def commands(spent: Spent, platform: Platform, cast: Cast) -> tuple[AsyncExitStack, int]:
    """Send commands of an agent that wait behind slow ones: pages of history, and then publishes to a channel that does not
    exist."""
    async with cast.rest() as rest:
        for _ in range(200):
            await rest.tenant(cast.tenant).messages.publish(cast.channels[0], {"data": "x" * 2000})
        token = (await rest.login(cast.tenant, cast.agents[0], load_signer(cast.keys[0]))).access_token
    stack = AsyncExitStack()
    history = [masked(json.dumps({"id": n, "history": {"channel": cast.channels[0], "limit": 200}}).encode()) for n in range(60)]
    long = masked(json.dumps({"id": 99, "subscribe": {"channel": "x" * 65_000}}).encode())
    burst = b"".join(history) + long * 900

    async def one() -> None:
        _, writer = await stack.enter_async_context(open_connection(platform.gateway_url))
        writer.write(UPGRADE + masked(json.dumps({"id": 1, "connect": {"access_token": token}}).encode()) + burst)
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(5):
                await writer.drain()
        spent.sent += len(burst) - writer.transport.get_write_buffer_size()

    async with asyncio.TaskGroup() as group:
        for _ in range(SOCKETS):
            group.create_task(one())
    return stack, SOCKETS


Attack = Callable[[Spent, Platform, Cast], Awaitable[int]]
Hold = Callable[[Spent, Platform, Cast], Awaitable[tuple[AsyncExitStack, int]]]

ATTACKS: Final[dict[str, Attack]] = {
    "256 KB of unknown fields, without a token": unknown_fields,
    "250 KB of wrong items in a list, by a member": wrong_items,
    "9,000 unknown query parameters, by a member": parameters,
    "a login refused, by an RSA key of 8,192 bits with a long exponent": refused_logins,
    "what is no HTTP, or no frame (answered: bytes of the log)": noise,
}
HOLDS: Final[dict[str, Hold]] = {
    "bodies of 256 KB that lack a byte, without a token": bodies,
    "bodies of 8 KB that lack a byte, without a token": small_bodies,
    "frames of 256 KB that lack some bytes, before connect": frames,
    "sockets of an agent with 60 pages of history and 900 long commands": commands,
}


async def run(options: Options) -> list[Table]:
    """Run each attack on a separate server."""
    columns = ("attack", "times", "bytes sent", "bytes answered", "server CPU, ms", "server memory, MiB")
    table = Table("What one peer can cost", columns, ["Bytes and CPU are per attempt, memory is the total of all attempts."])
    for name, attack in ATTACKS.items():
        async with _fresh_server(options) as (platform, cast):
            spent = Spent(platform)
            count = await attack(spent, platform, cast)
            table.rows.append(spent.row(name, max(1, count)))
    for name, held in HOLDS.items():
        async with _fresh_server(options) as (platform, cast):
            spent = Spent(platform)
            stack, count = await held(spent, platform, cast)
            table.rows.append(spent.row(name, count))
            await stack.aclose()
    return [table]


@asynccontextmanager
async def _fresh_server(options: Options) -> AsyncIterator[tuple[Platform, Cast]]:
    """Run a fresh server. Its memory is compared with that after its first served request."""
    with TemporaryDirectory(dir=options.folder.resolve()) as folder, running(Path(folder), python=sys.executable) as platform:
        cast = await platform.tenant_with()
        await asyncio.sleep(0.5)  # until the server has finished the work that creating the tenant triggered
        yield platform, cast
        platform.kill()  # it may be busy for long with the attack
