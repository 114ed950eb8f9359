"""The lines of standard input for a command that does other things while it waits for the next one."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from io import FileIO
from typing import Final

CHUNK_BYTES: Final = 64 * 1024
LONGEST_BYTES: Final = 1024 * 1024
WAITING: Final = 64


async def stdin_lines() -> AsyncIterator[tuple[int, str]]:
    """The lines that are not empty, numbered from 1; what is no UTF-8 stands in them as surrogates. Raises OSError.

    A thread reads them, since files, pipes and terminals have no other reading in common. It is a daemon on the bare descriptor:
    nothing waits for it, or for a lock that it holds, when the command ends while nobody types.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[bytes | OSError | None] = asyncio.Queue(WAITING)

    def hand_on(line: bytes | OSError | None) -> None:
        asyncio.run_coroutine_threadsafe(arrived.put(line), loop).result()

    def read() -> None:
        try:
            for line in split_lines(_chunks()):
                hand_on(line)
        except OSError as exc:
            hand_on(exc)
        else:
            hand_on(None)

    threading.Thread(target=read, name="standard input", daemon=True).start()
    number = 0
    while (line := await arrived.get()) is not None:
        if isinstance(line, OSError):
            raise line
        number += 1
        if text := line.decode(errors="surrogateescape").rstrip("\r"):
            yield number, text


def _chunks() -> Iterator[bytes]:
    with FileIO(sys.stdin.fileno(), closefd=False) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The lines in these bytes, without their ends. One of over a megabyte comes in pieces: no message has room for it."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > LONGEST_BYTES:
            yield rest
            rest = b""
    if rest:
        yield rest
