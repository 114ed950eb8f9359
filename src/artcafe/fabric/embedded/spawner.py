"""Starting a nats-server as a child: with none of our environment, files that nobody else reads, and an end when ours comes."""

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
"""Starting the child takes some ten: the pipes of both processes, what stands for their input, and a connection to ask it by."""

PASSED_ON: Final = ("PATH", "TZ", "GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT", "GOTRACEBACK")
"""What nats-server may need to know. The rest may hold credentials of ours, and every program that it starts would get them."""

_GUARD: Final = 'read -r _; kill "$1"; for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 1; kill -0 "$1" || exit 0; done; kill -9 "$1"'
"""Waits until its input ends, which happens when the process that holds the other end does, in whichever way."""


def environment() -> dict[str, str]:
    """Return the environment of a nats-server."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


class Spawner:
    """Starts one nats-server after another, with descriptors that are kept back for it."""

    def __init__(self, errors: Path) -> None:
        """`errors` is the file that gets its standard error, begun anew with each. Raises OSError."""
        self._errors = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(self._errors, 0o600)  # an earlier version made it as the umask had it
        self._spare: list[int] = []
        self._guard: Process | None = None
        self._keep_back()

    def close(self) -> None:
        """Give every descriptor back. May be repeated."""
        self._give_way()
        if self._errors >= 0:
            os.close(self._errors)
            self._errors = -1

    @contextlib.contextmanager
    def with_spare(self) -> Iterator[None]:
        """While this lasts the descriptors that are kept back can be used."""
        self._give_way()
        try:
            yield
        finally:
            self._keep_back()

    async def start(self, *command: str | Path) -> Process:
        """Start the command, in a session of its own: Ctrl-C in the terminal is for this process alone. Raises OSError."""
        os.ftruncate(self._errors, 0)
        os.lseek(self._errors, 0, os.SEEK_SET)
        before = os.umask(0o077)  # of this process, since a child's own could only be set between fork and exec
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=self._errors, stderr=self._errors, env=environment(), start_new_session=True
            )
        finally:
            os.umask(before)
        try:
            await self._watch_over(process)
        except BaseException:
            process.kill()
            raise
        return process

    async def ended(self) -> None:
        """The child has ended: nobody need watch over it. May be repeated."""
        guard, self._guard = self._guard, None
        if guard is not None:
            with contextlib.suppress(ProcessLookupError):
                guard.kill()
            await guard.wait()

    async def _watch_over(self, process: Process) -> None:
        """Have the child ended when this process is killed.

        A shell waits for that, as every POSIX system has one: PR_SET_PDEATHSIG is Linux's alone, and follows the *thread* that
        started the child. Where there is no shell, the next start ends what is left over.
        """
        try:
            self._guard = await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", _GUARD, "artcafe-guard", str(process.pid),
                stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, env=environment(), start_new_session=True,
            )  # fmt: skip
        except OSError as exc:
            log.warning("nats.not_guarded", error=str(exc), effect="killed, this process leaves its nats-server running")

    def _keep_back(self) -> None:
        with contextlib.suppress(
            OSError
        ):  # taken by others meanwhile: what is there is kept, and the next time there may be more
            while len(self._spare) < SPARE_DESCRIPTORS:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _give_way(self) -> None:
        while self._spare:
            os.close(self._spare.pop())
