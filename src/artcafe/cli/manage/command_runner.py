"""Processes of `artcafe agent listen --exec`: one at a time for each call, with a time limit for it and all its children."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from typing import Final

GRACE_S: Final = 5.0
"""Seconds between SIGTERM and SIGKILL for a command beyond its time limit."""
STDERR: Final = 2
"""The descriptor that gets both outputs of a command. Standard output of `listen` is for messages."""


class CommandRunner:
    """Starts a shell command, again and again. Each process is the leader of a process group of its own."""

    def __init__(self, command: str, environ: Mapping[str, str], timeout_s: float) -> None:
        """`environ` is added to the environment of this process."""
        self._command, self._environ, self._timeout_s = command, {**os.environ, **environ}, timeout_s

    async def run(self, text: bytes) -> str | None:
        """Run the command with `text` as its standard input. Return how it failed, in words, and None after exit code 0.

        Beyond the time limit, its process group gets SIGTERM, and SIGKILL 5 s later. If this call is cancelled it gets SIGKILL.
        """
        try:
            process = await asyncio.create_subprocess_shell(
                self._command, stdin=asyncio.subprocess.PIPE, stdout=STDERR, env=self._environ, start_new_session=True
            )
        except OSError as exc:
            return f"could not be started: {exc.strerror}"
        try:
            async with asyncio.timeout(self._timeout_s):
                await process.communicate(text)
        except TimeoutError:
            await _terminate(process)
            return f"did not end within {self._timeout_s:g} s, and was killed"
        finally:
            if process.returncode is None:
                _signal_group(process, signal.SIGKILL)
                await process.wait()
        return _failure_text(process.returncode)


async def _terminate(process: asyncio.subprocess.Process) -> None:
    """End the process group: the command first gets time to clean up, its children end with it."""
    _signal_group(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE_S):
            await process.wait()
    _signal_group(process, signal.SIGKILL)
    await process.wait()


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # All of its processes have ended.
        os.killpg(process.pid, number)


def _failure_text(code: int | None) -> str | None:
    if code == 0:
        return None
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
