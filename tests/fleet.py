"""A fleet as an operator runs it: NATS servers configured by `artcafe nats config`, several `artcafe serve` on the same tables,
and a balancer in front of them."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from artcafe.fabric.embedded.process import find_binary, some_free_port
from artcafe.fabric.nats.configuration import Node
from artcafe.tables.catalog import Environment
from artcafe.tables.open import open_engine
from tests.aws import Aws
from tests.children import started_with_parent
from tests.forked import run_artcafe
from tests.platform import Platform

WAIT_S = 30.0
CHUNK_BYTES = 65536
TABLES = "tables.sqlite"


class NatsServers:
    """One NATS server, or three in a cluster; each a process that may be killed and restarted."""

    def __init__(self, folder: Path, size: int, tls: Sequence[str] = ()) -> None:
        """`tls`: the flags of `artcafe nats config` for TLS."""
        self._tls = list(tls)
        self.folder = folder
        self.secret = folder / "secret"
        folder.mkdir(parents=True, exist_ok=True)
        self.secret.write_text(secrets.token_hex(32))
        self.secret.chmod(0o600)
        ports = {some_free_port() for _ in range(4 * size)}
        self.nodes = [Node(f"nats-{n}", "127.0.0.1", ports.pop(), ports.pop()) for n in range(1, size + 1)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for node in self.nodes:
            self._conf(node).write_text(self._configured(node))

    @property
    def urls(self) -> str:
        """Return the value of `--nats-urls`."""
        urls = ",".join(node.url for node in self.nodes)
        return urls.replace("nats://", "tls://") if self._tls else urls

    def _conf(self, node: Node) -> Path:
        return self.folder / f"{node.name}.conf"

    def _configured(self, node: Node) -> str:
        command = ["nats", "config", "--secret-file", str(self.secret), "--name", node.name]
        command += ["--store", str(self.folder / node.name), *self._tls]
        for each in self.nodes:
            command += ["--node", f"{each.name}={each.host}:{each.port}:{each.route_port}"]
        done = run_artcafe(*command, timeout=WAIT_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def reroute(self, node: Node, ports: Mapping[str, int], advertised: int) -> None:
        """Make a node reach the others at other ports than those they listen on, and advertise such a port as its own."""
        lines = self._conf(node).read_text().splitlines()
        told = json.loads("".join(line for line in lines if not line.startswith("#")))
        others = [each for each in self.nodes if each is not node]
        told["cluster"]["routes"] = [
            f"{route.rpartition(':')[0]}:{ports.get(other.name, other.route_port)}"
            for route, other in zip(told["cluster"]["routes"], others, strict=True)
        ]
        told["cluster"]["advertise"] = f"127.0.0.1:{advertised}"
        self._conf(node).write_text(json.dumps(told))

    def start(self, *nodes: Node, monitor: int | None = None) -> None:
        """Start these nodes, or all. Nodes find each other while others wait for them. `monitor`: a node's port for health
        checks."""
        more = [] if monitor is None else ["-m", str(monitor)]
        for node in nodes or self.nodes:
            with self._log(node).open("ab") as log:
                self._processes[node.name] = started_with_parent(
                    [find_binary(), "-c", self._conf(node), *more],
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def _log(self, node: Node) -> Path:
        return self.folder / f"{node.name}.log"

    def kill(self, name: str) -> None:
        """Kill a NATS server with SIGKILL."""
        self._processes[name].kill()
        self._processes[name].wait(10)

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def end(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(10)

    def log(self) -> str:
        return "".join(
            f"--- {node.name}\n{self._log(node).read_text()[-1500:]}" for node in self.nodes if self._log(node).exists()
        )


class Fleet(Platform):
    """Several servers. Used as a platform it is the first of them, but agents get the balancer's address."""

    def __init__(self, nats: NatsServers, servers: Sequence[Platform]) -> None:
        super().__init__(nats.folder, secret=nats.secret)
        self.nats, self.servers = nats, list(servers)
        self._balancer: Balancer | None = None
        self._turns = itertools.count()

    @property
    def tables(self) -> Path:
        """The table file of all servers, if they use one."""
        return self.folder.parent / TABLES

    @property
    def living(self) -> list[Platform]:
        """Return the running servers."""
        return [server for server in self.servers if server.process is not None and server.process.poll() is None]

    @property
    def agents_url(self) -> str:
        return self.url if self._balancer is None else self._balancer.url

    def a_gateway(self) -> str:
        """Return the gateway of the next running server, in turns."""
        living = self.living
        return living[next(self._turns) % len(living)].gateway_url

    @asynccontextmanager
    async def balanced(self) -> AsyncIterator[None]:
        """Give agents one address for all servers within this block."""
        async with Balancer(self).open() as self._balancer:
            try:
                yield
            finally:
                self._balancer = None

    def log(self) -> str:
        return "".join(f"=== server {number}\n{server.log()[-1500:]}" for number, server in enumerate(self.servers, 1))


class Balancer:
    """Passes each connection to the next server that accepts it, in turns, like a load balancer in front of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._turns = fleet, itertools.count()
        self.url = ""
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Balancer]:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await self._dial()
        if there is None:
            writer.transport.abort()
            return
        both = {writer, there[1]}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, there[1]))
                group.create_task(self._pass(there[0], writer))
        except* OSError:
            pass
        finally:
            for each in both:
                each.transport.abort()
            self._writers -= both

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        urls = [server.url for server in self._fleet.servers]
        start = next(self._turns)
        for offset in range(len(urls)):
            parsed = urlsplit(urls[(start + offset) % len(urls)])
            try:
                return await asyncio.open_connection(parsed.hostname, parsed.port)
            except OSError:
                continue
        return None

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


def _make_tables(place: str, endpoint: str) -> None:
    """Create the tables, as an operator does once: `artcafe serve` creates none."""

    async def make() -> None:
        engine = await open_engine(place, endpoint, Environment.PROD, make_missing=True)
        await engine.close()

    with ThreadPoolExecutor(1) as thread:  # a test's own loop may be running here
        thread.submit(asyncio.run, make()).result()


@contextmanager
def running_fleet(
    folder: Path,
    *,
    servers: int = 2,
    nats: int | NatsServers = 1,
    flags: Sequence[str] = (),
    aws: Aws | None = None,
    urls: Callable[[int], str] | None = None,
    python: Path | str | None = None,
) -> Iterator[Fleet]:
    """Run a fleet within this block; everything it started ends afterwards.

    `aws`: the emulator of its tables. `urls`: the NATS URLs of each server, if not direct. `python`: as for `Platform`.
    """
    cluster = NatsServers(folder / "nats", nats) if isinstance(nats, int) else nats
    tables = ["--tables", f"sqlite:{folder / TABLES}"] if aws is None else aws.tables_flags()
    if aws is not None:
        _make_tables(tables[1], aws.url)
    shared = ["--secret-file", str(cluster.secret), *tables, *flags]
    members = []
    for number in range(servers):
        reached = ["--nats-urls", cluster.urls if urls is None else urls(number)]
        folder_of = folder / f"server-{number + 1}"
        members.append(Platform(folder_of, [*reached, *shared], command="serve", secret=cluster.secret, python=python))
    try:
        cluster.start()
        for member in members:
            member.start()
        fleet = Fleet(cluster, members)
        fleet.url, fleet.gateway_url = members[0].url, members[0].gateway_url
        yield fleet
    finally:
        for member in members:
            if member.process is not None and member.process.poll() is None:
                member.stop()
        cluster.end()
