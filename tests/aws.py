"""AWS as far as ArtCafe uses it: ministack's DynamoDB and Cognito, as a child process on a free port of loopback.

It ends with the process that started it, whatever ends that: its standard input closes. It keeps nothing on disk. Its tables and
user pools stand apart by region, so that a test which takes a region of its own has it to itself; a region's name is any word.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import httpx

WAIT_S: Final = 30.0
"""For a start on a machine that is busy with other tests."""

CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
"""What the emulator takes, and what keeps a client from looking for others on this machine."""

CHILD: Final = """
import asyncio, decimal, sys
from hypercorn.asyncio import serve
from hypercorn.config import Config
from ministack.app import app

decimal.DefaultContext.prec = 300
decimal.setcontext(decimal.DefaultContext)
config = Config()
config.bind = [f"fd://{sys.argv[1]}"]
config.graceful_timeout = 0.1
asyncio.run(serve(app, config, shutdown_trigger=lambda: asyncio.to_thread(sys.stdin.read)))
"""
"""It adds numbers in its threads' contexts, whose 28 digits round; DynamoDB refuses a sum of more than 38."""


@dataclass(frozen=True, slots=True)
class Aws:
    """A running emulator. `url` is the endpoint of every service."""

    url: str
    log: Path
    _numbers: Iterator[int] = field(default_factory=lambda: count(1), repr=False)

    def new_region(self) -> str:
        """A region in which nothing stands yet."""
        return f"us-test-{next(self._numbers)}"

    def tables_flags(self, url: str | None = None) -> list[str]:
        """What tells a server to keep its tables here in a new region, through `url` where that stands before the emulator."""
        return ["--tables", f"dynamodb:{self.new_region()}", "--dynamodb-endpoint", url or self.url]


@contextmanager
def running(folder: Path) -> Iterator[Aws]:
    """An emulator that answers, and is gone afterwards. `folder` gets its log."""
    with socket.create_server(("127.0.0.1", 0)) as listener, (folder / "log").open("wb") as log:
        port, number = listener.getsockname()[1], listener.fileno()
        command = [sys.executable, "-c", CHILD, str(number)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=[number], env=_environ(port), start_new_session=True
        )
    aws = Aws(f"http://127.0.0.1:{port}", folder / "log")
    try:
        _wait_healthy(aws, process)
        yield aws
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()


def _environ(port: int) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    return kept | {
        "GATEWAY_PORT": str(port),
        "SERVICES": "dynamodb,cognito-idp,cognito-identity",
        "LOG_LEVEL": "WARNING",
        "DOCKER_HOST": "unix:///nonexistent",  # It would tidy up containers at its start, which may be somebody's.
    }


def _wait_healthy(aws: Aws, process: subprocess.Popen[bytes]) -> None:
    # The socket listens from the first moment, so that a request waits in its queue until the emulator takes it.
    try:
        services = httpx.get(f"{aws.url}/_ministack/health", timeout=WAIT_S, trust_env=False).json()["services"]
    except (httpx.HTTPError, ValueError) as exc:
        raise AssertionError(f"the emulator ({process.poll()}) is not healthy:\n{aws.log.read_text()[-3000:]}") from exc
    assert services["dynamodb"], services
    assert services["cognito-idp"], services
