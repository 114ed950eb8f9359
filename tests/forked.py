"""`artcafe` commands in processes that are forked with the modules of a server already imported.

Importing them takes a second or more of processor time, and the suite starts some hundred servers. A forked process runs the
command's `main` with the environment, descriptors and arguments of its caller. Tests of the start itself execute the command.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from tests.children import PR_SET_PDEATHSIG, plain_environ, started_with_parent

PRELOADED: Final = (
    "anyio._backends._asyncio",
    "artcafe.cli.commands",
    "artcafe.cli.manage.agent_commands",
    "artcafe.cli.manage.agents",
    "artcafe.cli.operate.serve",
    "artcafe.sdk.agent",
    "artcafe.sdk.client",
    "artcafe.server",
    "artcafe.tables.dynamodb.engine",
    "uvloop",
)
MOST_BYTES: Final = 1 << 18
"""Longest request: arguments and environment."""


class ForkedProcess:
    """A running command: the methods of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int, arguments: Sequence[str], status: int) -> None:
        """`status`: a descriptor from which the exit code can be read once the process has ended."""
        self.pid, self.args = pid, list(arguments)
        self.returncode: int | None = None
        self._status = status
        self._reading = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        self._read(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code. Raises `subprocess.TimeoutExpired`."""
        self._read(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def _read(self, timeout: float | None) -> None:
        with self._reading:
            if self.returncode is None and self._has_ended(timeout):
                told = os.read(self._status, 64)
                os.close(self._status)
                self.returncode = int(told) if told else -signal.SIGKILL

    def _has_ended(self, timeout: float | None) -> bool:
        waiting = select.poll()  # `select.select` takes no descriptor above 1,023
        waiting.register(self._status, select.POLLIN)
        return bool(waiting.poll(None if timeout is None else timeout * 1000))

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Server:
    """The process that is forked, one for each process of the test run."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-c", "from tests import forked; forked.serve()"]
            root = Path(__file__).parents[1]
            self._process = started_with_parent(command, stdin=theirs, cwd=root, start_new_session=True)
        self._asking = threading.Lock()

    def start(self, arguments: Sequence[str], environ: Mapping[str, str], folder: Path, out: int, err: int) -> ForkedProcess:
        status, theirs = os.pipe()
        request = {"arguments": list(arguments), "environ": dict(environ), "folder": str(folder)}
        try:
            with self._asking:
                socket.send_fds(self._ours, [json.dumps(request).encode()], [out, err, theirs])
                pid = int(self._ours.recv(64))
        finally:
            os.close(theirs)
        return ForkedProcess(pid, arguments, status)


@functools.cache
def _server() -> _Server:
    return _Server()


def start_artcafe(
    arguments: Sequence[str],
    *,
    stdout: IO[bytes],
    stderr: IO[bytes],
    env: Mapping[str, str],
    folder: Path | None = None,
) -> ForkedProcess | subprocess.Popen[bytes]:
    """Start `artcafe` with these arguments, in a session of its own; the kernel ends it when the test run ends.

    `folder`: its working directory; None: that of this process.
    """
    if sys.platform != "linux":
        command = [sys.executable, "-m", "artcafe", *arguments]
        return started_with_parent(command, stdout=stdout, stderr=stderr, env=env, cwd=folder, start_new_session=True)
    return _server().start(arguments, env, folder or Path.cwd(), stdout.fileno(), stderr.fileno())


def run_artcafe(
    *arguments: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run `artcafe` with these arguments until it ends, and return what it printed. `env`: by default `plain_environ`."""
    words, environ = [str(each) for each in arguments], plain_environ() if env is None else env
    with os.fdopen(os.memfd_create("out"), "w+b") as out, os.fdopen(os.memfd_create("err"), "w+b") as err:
        process = start_artcafe(words, stdout=out, stderr=err, env=environ)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        printed: list[str] = []
        for each in (out, err):
            each.seek(0)
            printed.append(each.read().decode())
        return subprocess.CompletedProcess(words, code, *printed)


# --- in the process that is forked -------------------------------------------------------------------------------------------


def serve() -> None:
    """Fork a process for each request on standard input, until that is closed."""
    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()
    asked = socket.socket(fileno=0)
    statuses: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(asked, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is asked:
                    request, descriptors, _, _ = socket.recv_fds(asked, MOST_BYTES, 3)
                    if not request:
                        return
                    pid = _fork(json.loads(request), *descriptors[:2])
                    for each in descriptors[:2]:
                        os.close(each)
                    ended = os.pidfd_open(pid)
                    statuses[ended] = pid, descriptors[2]
                    selector.register(ended, selectors.EVENT_READ)
                    asked.send(str(pid).encode())
                    continue
                pid, status = statuses.pop(key.fd)
                selector.unregister(key.fd)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
                    os.write(status, str(code).encode())
                os.close(status)
                os.close(key.fd)


def _fork(request: dict[str, Any], out: int, err: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)
        _take_over(request, out, err)
        code = _main()
    except BaseException:  # noqa: BLE001 - as the interpreter does for an exception that nothing catches
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _take_over(request: dict[str, Any], out: int, err: int) -> None:
    """Make this process like one that was just executed with the request."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environ"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, own in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(descriptor, own)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - open as long as the process
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as above
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115 - as above
    sys.argv = ["artcafe", *request["arguments"]]


def _main() -> int:
    from artcafe.__main__ import main

    try:
        main()
    except SystemExit as end:
        atexit._run_exitfuncs()
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    atexit._run_exitfuncs()
    return 0
