"""SIGHUP, from `kill -HUP` and from a closed terminal, ends a running server in order."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx2
import pytest

from tests.children import started_with_parent
from tests.faults.processes import wait_for
from tests.gateway.raw_client import open_client
from tests.platform import running

END_S: Final = 30
AT_TERMINAL: Final = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if sys.argv.pop(1) == "nohup":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Makes standard input the controlling terminal, and becomes the command."""


class Terminal:
    """An `artcafe up` at a terminal, to which it prints and logs."""

    def __init__(self, data: Path, flags: list[str], *, nohup: bool = False) -> None:
        self._ours, theirs = pty.openpty()
        os.set_blocking(self._ours, False)
        command = [sys.executable, "-c", AT_TERMINAL, "nohup" if nohup else "", "-m", "artcafe", "up", "--data-dir", str(data)]
        command += ["--listen", "127.0.0.1:0", "--gateway-listen", "127.0.0.1:0", "--log-level", "debug", *flags]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ARTCAFE_")}
        self.process: subprocess.Popen[bytes] = started_with_parent(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
        )
        os.close(theirs)
        self._printed = b""
        self._info = data / "server.json"

    def wait_until_up(self) -> dict[str, str]:
        """Wait for the start, and return the server's addresses."""
        wait_for(self._is_up, "a server at a terminal")
        info: dict[str, str] = json.loads(self._info.read_text())
        return info

    def _is_up(self) -> bool:
        with suppress(OSError):
            self._printed += os.read(self._ours, 65536)
        assert self.process.poll() is None, self._printed
        return b"Ctrl-C stops it" in self._printed and b"Try, in another terminal" in self._printed

    def close(self) -> None:
        """Close the terminal: the kernel sends SIGHUP, and everything written to it fails. May be repeated."""
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1


@contextmanager
def at_terminal(data: Path, flags: list[str], *, nohup: bool = False) -> Iterator[Terminal]:
    """Run an `artcafe up` at a terminal within this block."""
    terminal = Terminal(data, flags, nohup=nohup)
    try:
        yield terminal
    finally:
        terminal.process.terminate()
        try:
            terminal.process.wait(END_S)
        finally:
            terminal.process.kill()
            terminal.close()


async def close_code(gateway_url: str, hang_up: Callable[[], None]) -> int:
    """Return the code with which the gateway closes a socket after the hangup."""
    async with open_client(gateway_url) as raw:
        hang_up()
        return await raw.closed()


def test_hangup_of_a_server_of_one_process_closes_sockets_with_4000_and_exits_with_0(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        process = platform.process
        assert process is not None

        code = asyncio.run(close_code(platform.gateway_url, lambda: process.send_signal(signal.SIGHUP)))

        assert code == 4000
        assert process.wait(END_S) == 0
        assert not (platform.data / "server.json").exists()


@pytest.mark.parametrize("flags", [[], ["--processes", "2"]])
def test_closed_terminal_closes_sockets_with_4000_and_exits_with_0(tmp_path: Path, flags: list[str]) -> None:
    data = tmp_path / "data"
    with at_terminal(data, flags) as terminal:
        code = asyncio.run(close_code(terminal.wait_until_up()["gateway_url"], terminal.close))

        assert code == 4000
        assert terminal.process.wait(END_S) == 0
        assert not (data / "server.json").exists()


@pytest.mark.parametrize("flags", [[], ["--processes", "2"]])
def test_closed_terminal_ends_no_server_under_nohup(tmp_path: Path, flags: list[str]) -> None:
    data = tmp_path / "data"
    with at_terminal(data, flags, nohup=True) as terminal:
        url = terminal.wait_until_up()["url"]

        terminal.close()

        threading.Event().wait(1)  # An end would have begun.
        assert httpx2.get(f"{url}/health/ready", timeout=10).status_code == 200
        assert terminal.process.poll() is None
