"""Compiles and runs the load (`load.c`), which gets sockets that are open and greeted; `bench.fanout.sockets` opens them."""

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
"""Above what was asked for: the load ends by itself when nothing comes for 5 s."""
LOST: Final = 4
"""The status with which it ends when something was missing or out of order."""
NUMBER: Final = b"^0000000000:0000000000000000000"
"""Stands in a message where the load writes its number and time."""


@dataclass(slots=True)
class Line:
    """Sockets that share their channels, and one that publishes to them. `messages`: one for each channel, as it is written."""

    publisher: socket.socket
    readers: Sequence[socket.socket]
    messages: Sequence[bytes]
    pids: Sequence[int]
    """Who serves them: first the process that is measured, then those it needs."""
    alive_reader: bytes = b""
    """What a reader may say at any time so that it is not taken for dead."""
    alive_publisher: bytes = b""

    def keep_alive(self) -> None:
        """Says so, for sockets whose turn is not now."""
        for each in self.readers if self.alive_reader else ():
            each.send(self.alive_reader)
        if self.alive_publisher:
            self.publisher.sendall(self.alive_publisher)

    def close(self) -> None:
        for each in (self.publisher, *self.readers):
            each.close()


@dataclass(frozen=True, slots=True)
class Result:
    """What the load saw. `cores` are those of each pid."""

    deliveries_per_s: float
    published_per_s: float
    published: int
    """From the first to the last, so more than in the time that was measured."""
    wrong: int
    """Messages that did not follow the one before them."""
    missing: int
    bytes: float
    """That one delivery has on the wire, above TCP."""
    messages_a_read: float
    p50_us: float
    p99_us: float
    max_us: float
    load_cores: float
    cores: list[float] = field(default_factory=list)

    @property
    def all_cores(self) -> float:
        return sum(self.cores)

    @property
    def cpu_us(self) -> float:
        """What a delivery costs, all servers together."""
        return self.all_cores / self.deliveries_per_s * 1e6


class Load:
    """The compiled load, in a folder that goes with it."""

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

    async def run(self, line: Line, mode: str, amount: float, seconds: float, *, may_lose: bool = False) -> Result:
        """`window`: with `amount` messages under way; `rate`: `amount` messages a second.

        Raises `RuntimeError` when a socket ended, and unless it `may_lose` when a message was missing, out of order or twice.
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
                told, failed = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode and not (may_lose and process.returncode == LOST):
            raise RuntimeError(f"the load failed ({process.returncode}): {failed.decode()}{told.decode()}")
        found = dict(pair.split("=") for pair in told.decode().split())
        cores = [float(each) for each in found.pop("cores").split(",") if each]
        return msgspec.convert({**found, "cores": cores}, Result, strict=False)
