"""Starting nats-server as a child process: without our environment, with private files, and stopped when this process ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from artcafe.observe.logs import log

SPARE_DESCRIPTORS: Final = 24
"""Starting the child takes about ten: the pipes of both processes, their standard input, and a connection for health checks."""

PASSED_ON: Final = ("PATH", "TZ", "GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT", "GOTRACEBACK")
"""Environment variables for nats-server. Others may contain our credentials, which every program started by it would inherit."""

_GUARD: Final = 'read -r _; kill "$1"; for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 1; kill -0 "$1" || exit 0; done; kill -9 "$1"'
"""Waits for the end of its standard input, which comes when this process ends in any way, and then stops the child."""


def environment() -> dict[str, str]:
    """Return the environment of nats-server."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


class Spawner:
    """Starts one nats-server after another, with file descriptors reserved for it."""

    def __init__(self, errors: Path) -> None:
        """`errors` is the file for its standard error, truncated at each start. Raise OSError."""
        self._errors = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(self._errors, 0o600)  # An earlier version created it with the umask's mode.
        self._spare: list[int] = []
        self._guard: Process | None = None
        self._reserve()

    def close(self) -> None:
        """Release every descriptor. May be repeated."""
        self._release_reserved()
        if self._errors >= 0:
            os.close(self._errors)
            self._errors = -1

    @contextlib.contextmanager
    def using_reserved(self) -> Iterator[None]:
        """Release the reserved descriptors for use inside the block."""
        self._release_reserved()
        try:
            yield
        finally:
            self._reserve()

    async def start(self, *command: str | Path) -> Process:
        """Start the command in a session of its own: Ctrl-C in the terminal must reach this process only. Raise OSError.

        A cancelled start has ended the process before it returns.
        """
        os.ftruncate(self._errors, 0)
        os.lseek(self._errors, 0, os.SEEK_SET)
        async with asyncio.TaskGroup() as group:
            starting = group.create_task(self._execute(*command))
            try:
                await asyncio.wait([starting])
            except asyncio.CancelledError:
                if isinstance(process := await starting, Process):
                    with contextlib.suppress(ProcessLookupError):  # It has ended by itself.
                        process.kill()
                    await process.wait()
                raise
        if isinstance(result := starting.result(), OSError):
            raise result
        return result

    async def _execute(self, *command: str | Path) -> Process | OSError:
        """Start the command, and return its process or the error."""
        before = os.umask(0o077)  # This process's umask, since a child's own could only be set between fork and exec.
        try:
            return await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=self._errors, stderr=self._errors, env=environment(), start_new_session=True
            )
        except OSError as exc:
            return exc
        finally:
            os.umask(before)

    async def start_guard(self, process: Process) -> None:
        """Start a guard that stops the child when this process is killed.

        The guard is a shell, which every POSIX system has: PR_SET_PDEATHSIG exists on Linux only, and follows the *thread* that
        started the child. Without a shell, the next start stops a leftover child.
        """
        try:
            self._guard = await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", _GUARD, "artcafe-guard", str(process.pid),
                stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, env=environment(), start_new_session=True,
            )  # fmt: skip
        except OSError as exc:
            log.warning("nats.not_guarded", error=str(exc), effect="if this process is killed, its nats-server keeps running")

    async def stop_guard(self) -> None:
        """Stop the guard after the end of its child. May be repeated."""
        guard, self._guard = self._guard, None
        if guard is not None:
            with contextlib.suppress(ProcessLookupError):
                guard.kill()
            await guard.wait()

    def _reserve(self) -> None:
        with contextlib.suppress(OSError):  # Others have taken descriptors: keep those reserved so far, and try again next time.
            while len(self._spare) < SPARE_DESCRIPTORS:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _release_reserved(self) -> None:
        while self._spare:
            os.close(self._spare.pop())
