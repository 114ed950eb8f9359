"""The measured servers: ArtCafe and its competitors, each in its own process, with groups of connected sockets."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import msgspec

from artcafe.fabric.embedded.process import find_binary
from artcafe.model import ChannelId, TenantId
from artcafe.rules import subjects
from artcafe.wire import envelopes, frames
from bench.bench_env import BenchEnv
from bench.fanout import sockets
from bench.fanout.load import NUMBER, SocketGroup
from bench.raw_client import masked
from tests.platform import Cast

PAYLOAD: Final = b'"%b"' % NUMBER.ljust(198, b"x")
"""200 bytes, a JSON string."""
END_S: Final = 10.0
NO_REDIS: Final = "There is no redis-server here (Debian: apt-get install redis-server), so redis pub/sub is not in the tables."


class FanoutServer(Protocol):
    """A server under test."""

    name: str

    async def open_group(self, readers: int, channels: int) -> SocketGroup:
        """Return readers that receive all of these new channels, read empty."""


class ArtCafe:
    """`artcafe up`: sockets of one agent on `live` or stored channels, and a publisher on NATS."""

    def __init__(self, env: BenchEnv, cast: Cast, *, kind: str = "live", by_gateway: bool = False) -> None:
        """`by_gateway`: another agent publishes on a socket of the gateway, with replies; a publisher on NATS gets none."""
        self.name = "ArtCafe" if kind == "live" else "ArtCafe, stored"
        self._env, self._cast, self._kind, self._by_gateway = env, cast, kind, by_gateway
        self._agents = iter(range(1, len(cast.agents)))
        self._token = ""

    async def open_group(self, readers: int, channels: int) -> SocketGroup:
        env, cast = self._env, self._cast
        agent = next(self._agents)
        async with cast.rest() as rest:
            names = [
                (await rest.tenant(cast.tenant).channels.create(f"{agent}-{n}", type=self._kind)).id for n in range(channels)
            ]
            for name in names:
                await rest.tenant(cast.tenant).subscriptions.create(name, cast.agents[agent])
        self._token = await env.token(cast, agent)
        connected = [self.again() for _ in range(readers)]
        if self._by_gateway:
            publisher = self.connect(await env.token(cast, 0))
            messages = [command("publish", frames.Publish(name, msgspec.Raw(PAYLOAD))) for name in names]
            alive = sockets.PONG
        else:
            port = urlsplit(env.nats_url).port or 0
            publisher = sockets.nats(port, env.accounts.user(TenantId(cast.tenant)))
            messages = [_pub(subjects.live(ChannelId(name)), self._envelope(name, cast.agents[0])) for name in names]
            alive = b"PONG\r\n"
        server, *processes = env.server_pids()
        pids = [server, env.platform.nats_pid, *processes]
        line = SocketGroup(publisher, connected, messages, pids, sockets.PONG, alive)
        sockets.settle(line)
        return line

    def again(self) -> socket.socket:
        """Open a further socket of the last group's agent."""
        return self.connect(self._token)

    def connect(self, token: str) -> socket.socket:
        """Open a socket, and connect with this token."""
        url = urlsplit(self._env.platform.gateway_url)
        connected, _ = sockets.web_socket(url.port or 0, url.path, frames.SUBPROTOCOL)
        connected.sendall(command("connect", frames.Connect(access_token=token, tenant_id=self._cast.tenant)))
        found = sockets.until(connected, b"}")
        if b'"session_id"' not in found:
            raise ConnectionError(found.decode(errors="replace"))
        return connected

    @staticmethod
    def _envelope(channel: str, agent: str) -> bytes:
        publish = frames.Publish(channel, msgspec.Raw(PAYLOAD))
        return envelopes.envelope(publish, message_id=f"msg_{agent[4:]}", sender=agent, time="2026-11-22T17:00:00.000Z")


def command(kind: str, body: frames.Body) -> bytes:
    """Return the frame of a command to the gateway."""
    return masked(frames.command(kind, body, None if isinstance(body, frames.Ack) else 1))


def _pub(subject: str, body: bytes) -> bytes:
    return b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(body), body)


class NatsWebSocket:
    """nats-server's own WebSocket, in ArtCafe's version, with a publisher on TCP."""

    name = "nats-server WebSocket"

    def __init__(self, pid: int, port: int, web_port: int) -> None:
        self._pid, self._port, self._web_port, self._lines = pid, port, web_port, 0

    async def open_group(self, readers: int, channels: int) -> SocketGroup:
        self._lines += 1
        names = [f"bench.{self._lines}.{n}" for n in range(channels)]
        connected = [self._connect(names) for _ in range(readers)]
        messages = [_pub(name, PAYLOAD) for name in names]
        pong = b"PONG\r\n"
        line = SocketGroup(sockets.nats(self._port), connected, messages, [self._pid], sockets.binary(pong), pong)
        sockets.settle(line)
        return line

    def _connect(self, names: Sequence[str]) -> socket.socket:
        connected, _ = sockets.web_socket(self._web_port, "/")
        hello = "".join(f"SUB {name} {at}\r\n" for at, name in enumerate(names, 1))
        connected.sendall(sockets.binary(b'CONNECT {"verbose":false,"pedantic":false}\r\n%bPING\r\n' % hello.encode()))
        sockets.until(connected, b"PONG\r\n")
        return connected


class Redis:
    """redis-server's pub/sub over its own protocol, without WebSockets: a lower bound for any fan-out server."""

    name = "redis pub/sub"

    def __init__(self, pid: int, port: int) -> None:
        self._pid, self._port, self._lines = pid, port, 0

    async def open_group(self, readers: int, channels: int) -> SocketGroup:
        self._lines += 1
        names = [b"bench-%d-%d" % (self._lines, n) for n in range(channels)]
        connected = []
        for _ in range(readers):
            reader = sockets.dial(self._port)
            reader.sendall(_resp(b"SUBSCRIBE", *names))
            sockets.until(reader, b":%d\r\n" % channels)
            connected.append(reader)
        messages = [_resp(b"PUBLISH", name, PAYLOAD) for name in names]
        line = SocketGroup(sockets.dial(self._port), connected, messages, [self._pid])
        sockets.settle(line)
        return line


def _resp(*words: bytes) -> bytes:
    """Return a command in redis's protocol (RESP2)."""
    return b"*%d\r\n%b" % (len(words), b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))


class FastApi:
    """FastAPI on uvicorn, one awaited send for each subscriber."""

    name = "FastAPI on uvicorn"

    def __init__(self, pid: int, port: int) -> None:
        self._pid, self._port, self._lines = pid, port, 0

    async def open_group(self, readers: int, channels: int) -> SocketGroup:
        self._lines += 1
        names = [f"bench-{self._lines}-{n}" for n in range(channels)]
        connected = [sockets.web_socket(self._port, f"/receive/{','.join(names)}")[0] for _ in range(readers)]
        publisher, _ = sockets.web_socket(self._port, "/publish")
        messages = [masked(b"%b %b" % (name.encode(), PAYLOAD)) for name in names]
        line = SocketGroup(publisher, connected, messages, [self._pid])
        sockets.settle(line)
        return line


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def _process(*command: str | Path) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(END_S):
                    await process.wait()
            except TimeoutError:
                process.kill()


@asynccontextmanager
async def nats_web_socket(folder: Path) -> AsyncIterator[NatsWebSocket]:
    """Run a nats-server with a WebSocket, without accounts and JetStream."""
    port, web_port = free_port(), free_port()
    conf = folder / "nats-websocket.conf"
    conf.write_text(f"listen: 127.0.0.1:{port}\nwebsocket {{ listen: '127.0.0.1:{web_port}', no_tls: true }}\n")
    async with _process(find_binary(), "-c", conf) as process:
        sockets.dial(web_port).close()
        yield NatsWebSocket(process.pid, port, web_port)


@asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[Redis | None]:
    """Run a redis-server without persistence. None if it is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    port = free_port()
    settings = ["--save", "", "--appendonly", "no", "--client-output-buffer-limit", "pubsub 0 0 0"]
    async with _process(program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, *settings) as process:
        sockets.dial(port).close()
        yield Redis(process.pid, port)


@asynccontextmanager
async def fastapi(folder: Path) -> AsyncIterator[FastApi]:
    """Run `fastapi_server.py` on uvicorn with uvloop."""
    port = free_port()
    async with _process(sys.executable, Path(__file__).with_name("fastapi_server.py"), str(port)) as process:
        sockets.dial(port).close()
        yield FastApi(process.pid, port)
