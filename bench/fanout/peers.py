"""Who is measured: ArtCafe and the servers beside it, each started as a process and asked for a line of sockets."""

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
from bench.fanout.load import NUMBER, Line
from bench.raw_client import masked
from tests.platform import Cast

PAYLOAD: Final = b'"%b"' % NUMBER.ljust(198, b"x")
"""200 bytes, a JSON string."""
END_S: Final = 10.0
NO_REDIS: Final = "There is no redis-server here (Debian: apt-get install redis-server), so redis pub/sub is not in the tables."


class Peer(Protocol):
    """A server that fans out."""

    name: str

    async def line(self, readers: int, channels: int) -> Line:
        """Readers that all get all the channels, settled; channels of one line are no other line's."""


class ArtCafe:
    """`artcafe up`, one agent's sockets on `live` channels (or stored ones), published to through NATS by another client."""

    def __init__(self, env: BenchEnv, cast: Cast, *, kind: str = "live", by_gateway: bool = False) -> None:
        """`by_gateway`: published by another agent on a socket of the gateway; NATS alone confirms nothing to a publisher."""
        self.name = "ArtCafe" if kind == "live" else "ArtCafe, stored"
        self._env, self._cast, self._kind, self._by_gateway = env, cast, kind, by_gateway
        self._agents = iter(range(1, len(cast.agents)))
        self._token = ""

    async def line(self, readers: int, channels: int) -> Line:
        env, cast = self._env, self._cast
        agent = next(self._agents)
        async with cast.rest() as rest:
            names = [(await rest.create_channel(cast.tenant, f"{agent}-{n}", type=self._kind)).id for n in range(channels)]
            for name in names:
                await rest.subscribe(cast.tenant, name, cast.agents[agent])
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
        assert env.platform.process is not None
        pids = [env.platform.process.pid, env.platform.nats_pid]
        line = Line(publisher, connected, messages, pids, sockets.PONG, alive)
        sockets.settle(line)
        return line

    def again(self) -> socket.socket:
        """One more socket of the last line's agent."""
        return self.connect(self._token)

    def connect(self, token: str) -> socket.socket:
        """A socket on which that agent is logged in."""
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
    """A command to the gateway, as it goes over the wire."""
    return masked(frames.command(kind, body, None if isinstance(body, frames.Ack) else 1))


def _pub(subject: str, body: bytes) -> bytes:
    return b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(body), body)


class NatsWebSocket:
    """nats-server with its own WebSocket, the version that ArtCafe brings; published to over TCP."""

    name = "nats-server WebSocket"

    def __init__(self, pid: int, port: int, web_port: int) -> None:
        self._pid, self._port, self._web_port, self._lines = pid, port, web_port, 0

    async def line(self, readers: int, channels: int) -> Line:
        self._lines += 1
        names = [f"bench.{self._lines}.{n}" for n in range(channels)]
        connected = [self._connect(names) for _ in range(readers)]
        messages = [_pub(name, PAYLOAD) for name in names]
        pong = b"PONG\r\n"
        line = Line(sockets.nats(self._port), connected, messages, [self._pid], sockets.binary(pong), pong)
        sockets.settle(line)
        return line

    def _connect(self, names: Sequence[str]) -> socket.socket:
        connected, _ = sockets.web_socket(self._web_port, "/")
        hello = "".join(f"SUB {name} {at}\r\n" for at, name in enumerate(names, 1))
        connected.sendall(sockets.binary(b'CONNECT {"verbose":false,"pedantic":false}\r\n%bPING\r\n' % hello.encode()))
        sockets.until(connected, b"PONG\r\n")
        return connected


class Redis:
    """redis-server's pub/sub over its own protocol, which is no WebSocket: the least that a fan-out server can be asked for."""

    name = "redis pub/sub"

    def __init__(self, pid: int, port: int) -> None:
        self._pid, self._port, self._lines = pid, port, 0

    async def line(self, readers: int, channels: int) -> Line:
        self._lines += 1
        names = [b"bench-%d-%d" % (self._lines, n) for n in range(channels)]
        connected = []
        for _ in range(readers):
            reader = sockets.dial(self._port)
            reader.sendall(_resp(b"SUBSCRIBE", *names))
            sockets.until(reader, b":%d\r\n" % channels)
            connected.append(reader)
        messages = [_resp(b"PUBLISH", name, PAYLOAD) for name in names]
        line = Line(sockets.dial(self._port), connected, messages, [self._pid])
        sockets.settle(line)
        return line


def _resp(*words: bytes) -> bytes:
    """A command as redis wants it (RESP2)."""
    return b"*%d\r\n%b" % (len(words), b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))


class FastApi:
    """FastAPI on uvicorn, one awaited send for each subscriber."""

    name = "FastAPI on uvicorn"

    def __init__(self, pid: int, port: int) -> None:
        self._pid, self._port, self._lines = pid, port, 0

    async def line(self, readers: int, channels: int) -> Line:
        self._lines += 1
        names = [f"bench-{self._lines}-{n}" for n in range(channels)]
        connected = [sockets.web_socket(self._port, f"/receive/{','.join(names)}")[0] for _ in range(readers)]
        publisher, _ = sockets.web_socket(self._port, "/publish")
        messages = [masked(b"%b %b" % (name.encode(), PAYLOAD)) for name in names]
        line = Line(publisher, connected, messages, [self._pid])
        sockets.settle(line)
        return line


def free_port() -> int:
    """A port that nobody uses now."""
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
    """A nats-server without accounts and without JetStream, so nothing but its WebSocket."""
    port, web_port = free_port(), free_port()
    conf = folder / "nats-peer.conf"
    conf.write_text(f"listen: 127.0.0.1:{port}\nwebsocket {{ listen: '127.0.0.1:{web_port}', no_tls: true }}\n")
    async with _process(find_binary(), "-c", conf) as process:
        sockets.dial(web_port).close()
        yield NatsWebSocket(process.pid, port, web_port)


@asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[Redis | None]:
    """A redis-server that keeps nothing; None where there is none to start."""
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
    """The server of `fastapi_peer.py`, on uvloop as uvicorn chooses it."""
    port = free_port()
    async with _process(sys.executable, Path(__file__).with_name("fastapi_peer.py"), str(port)) as process:
        sockets.dial(port).close()
        yield FastApi(process.pid, port)
