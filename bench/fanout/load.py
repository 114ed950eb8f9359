"""Compiling and running the load generator (`load.c`). It gets sockets opened and authenticated by `bench.fanout.sockets`."""

from __future__ import annotations

import asyncio
import resource
import shutil
import socket
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import Final, Self

import msgspec

SOURCE: Final = Path(__file__).with_name("load.c")
WARM_S: Final = 0.5
PATIENCE_S: Final = 30.0
"""Added to the requested seconds: the load generator exits by itself after 5 s without a message."""
LOST: Final = 4
"""Its exit status for missing or unordered messages."""
NUMBER: Final = b"^0000000000:0000000000000000000"
"""Placeholder in a message for its number and time, written by the load generator."""


@dataclass(slots=True)
class SocketGroup:
    """Sockets with the same channels, and one publisher. `messages`: the encoded message of each channel."""

    publisher: socket.socket
    readers: Sequence[socket.socket]
    messages: Sequence[bytes]
    pids: Sequence[int]
    """The server processes: first the measured one, then its dependencies."""
    alive_reader: bytes = b""
    """Bytes that keep a reader alive, valid at any time."""
    alive_publisher: bytes = b""

    def keep_alive(self) -> None:
        """Send the keep-alive bytes on sockets outside the current measurement."""
        for each in self.readers if self.alive_reader else ():
            each.send(self.alive_reader)
        if self.alive_publisher:
            self.publisher.sendall(self.alive_publisher)

    def close(self) -> None:
        """Close every socket."""
        for each in (self.publisher, *self.readers):
            each.close()


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement. `cores`: CPU cores used by each pid."""

    deliveries_per_s: float
    published_per_s: float
    published: int
    """From first to last, including warm-up: more than in the measured time."""
    wrong: int
    """Messages out of order."""
    missing: int
    bytes: float
    """Bytes of one delivery on the wire, above TCP."""
    messages_a_read: float
    p50_us: float
    p99_us: float
    max_us: float
    load_cores: float
    cores: list[float] = field(default_factory=list)

    @property
    def all_cores(self) -> float:
        """CPU cores used by all servers."""
        return sum(self.cores)

    @property
    def cpu_us(self) -> float:
        """CPU time of one delivery in µs, of all servers."""
        return self.all_cores / self.deliveries_per_s * 1e6


class LoadGenerator:
    """The compiled load generator, in a temporary folder."""

    async def __aenter__(self) -> Self:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        self._folder = Path(mkdtemp(prefix="artcafe-load-"))
        self._program = self._folder / "load"
        if shutil.which("gcc") is None:
            raise RuntimeError(
                "the load is a C program and there is no gcc here to compile it (Debian: apt-get install gcc libc6-dev)"
            )
        compiler = await asyncio.create_subprocess_exec("gcc", "-O2", "-o", self._program, SOURCE)
        if await compiler.wait():
            raise RuntimeError(f"gcc did not compile {SOURCE}")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self._folder)

    async def run(self, line: SocketGroup, mode: str, amount: float, seconds: float, *, may_lose: bool = False) -> Measurement:
        """Run one measurement. `window`: with `amount` messages in flight; `rate`: with `amount` messages per second.

        Raises `RuntimeError` if a socket closed, and unless `may_lose` also for missing, unordered and repeated messages.
        """
        fds = [each.fileno() for each in (line.publisher, *line.readers)]
        sockets, texts = self._folder / "sockets", self._folder / "texts"
        sockets.write_text("\n".join(map(str, fds)))
        pieces = (line.alive_reader, line.alive_publisher, *line.messages)
        texts.write_bytes(b"".join(b"%d\n%b" % (len(each), each) for each in pieces))
        order: list[str | Path] = [sockets, texts, mode, f"{amount:.3f}", str(WARM_S), f"{seconds:.3f}", *map(str, line.pids)]
        process = await asyncio.create_subprocess_exec(self._program, *order, pass_fds=fds, stdout=PIPE, stderr=PIPE)
        try:
            async with asyncio.timeout(WARM_S + seconds + PATIENCE_S):
                output, failed = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode and not (may_lose and process.returncode == LOST):
            raise RuntimeError(f"the load failed ({process.returncode}): {failed.decode()}{output.decode()}")
        found = dict(pair.split("=") for pair in output.decode().split())
        cores = [float(each) for each in found.pop("cores").split(",") if each]
        return msgspec.convert({**found, "cores": cores}, Measurement, strict=False)
