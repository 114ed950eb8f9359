"""Asynchronous lines of standard input."""

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


async def stdin_lines(longest_bytes: int = LONGEST_BYTES) -> AsyncIterator[tuple[int, str]]:
    """Yield non-empty lines with their numbers, from 1. Invalid UTF-8 is decoded to surrogates. Raises OSError.

    Lines longer than `longest_bytes` are split.

    A thread reads the lines, because blocking reads are the only ones that files, pipes and terminals have in common. It is a
    daemon thread on the bare file descriptor, so the command can exit during a pending read without waiting for it or its lock.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[bytes | OSError | None] = asyncio.Queue(WAITING)

    def hand_on(line: bytes | OSError | None) -> None:
        asyncio.run_coroutine_threadsafe(arrived.put(line), loop).result()

    def read() -> None:
        try:
            for line in split_lines(_chunks(), longest_bytes):
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


def split_lines(chunks: Iterator[bytes], longest_bytes: int = LONGEST_BYTES) -> Iterator[bytes]:
    """Yield the lines in `chunks` without line ends. A longer line than `longest_bytes`, too long for any message, is split."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > longest_bytes:
            yield rest
            rest = b""
    if rest:
        yield rest
