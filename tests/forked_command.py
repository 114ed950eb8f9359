"""A command `artcafe` for scripts of tests, which asks this process to fork it (`tests.forked`) instead of starting Python."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.forked import MOST_BYTES, ForkedProcess, start_artcafe

COMMAND: Final = """\
#!{python} -ISE
import json, os, socket, sys
asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
asked.connect({address!r})
request = {{"arguments": sys.argv[1:], "environ": dict(os.environ), "folder": os.getcwd()}}
socket.send_fds(asked, [json.dumps(request).encode()], [1, 2])
sys.exit(int(asked.recv(64)))
"""
"""The program: it passes on its arguments, environment, folder and outputs, and ends with the command's exit code."""

COMMANDS: Final = 8
"""At most so many run at once."""


@contextmanager
def forked_artcafe(folder: Path) -> Iterator[Path]:
    """Yield a folder for the PATH of a script, which has the command. Elsewhere than on Linux it is that of this interpreter."""
    if sys.platform != "linux":
        yield Path(sys.executable).parent
        return
    address = folder / "asked"
    command = folder / "artcafe"
    command.write_text(COMMAND.format(python=sys.executable, address=str(address)))
    command.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, ThreadPoolExecutor(COMMANDS) as pool:
        listener.bind(str(address))
        listener.listen(COMMANDS)
        accepting = threading.Thread(target=_accept, args=(listener, pool))
        accepting.start()
        try:
            yield folder
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


def _accept(listener: socket.socket, pool: ThreadPoolExecutor) -> None:
    while True:
        try:
            asked, _ = listener.accept()
        except OSError:  # the end of the script
            return
        pool.submit(_serve, asked)


def _serve(asked: socket.socket) -> None:
    """Run one command. It is killed when the program that asked for it has ended."""
    with asked:
        request, (out, err), _, _ = socket.recv_fds(asked, MOST_BYTES, 2)
        given = json.loads(request)
        with os.fdopen(out, "wb") as stdout, os.fdopen(err, "wb") as stderr:
            process = start_artcafe(
                given["arguments"], stdout=stdout, stderr=stderr, env=given["environ"], folder=Path(given["folder"])
            )
        ended = threading.Thread(target=_kill_when_closed, args=(asked, process))
        ended.start()
        code = process.wait()
        asked.send(str(code if code >= 0 else 128 - code).encode())
        asked.shutdown(socket.SHUT_RD)
        ended.join()


def _kill_when_closed(asked: socket.socket, process: ForkedProcess | subprocess.Popen[bytes]) -> None:
    if not asked.recv(1):
        process.kill()
