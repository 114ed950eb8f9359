"""The parts of AWS that ArtCafe uses: ministack's DynamoDB and Cognito, as a child process on a free loopback port.

It ends with the process that started it, even if that is killed: its standard input closes. It stores nothing on disk. Its tables
and user pools are separate for each region, so a test with a region of its own has it to itself; a region's name may be any word.
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

import httpx2

WAIT_S: Final = 30.0
"""For a start on a machine that is busy with other tests."""

CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
"""The emulator's credentials, and variables that keep a client from looking for other credentials on this machine."""

CHILD: Final = """
import asyncio, decimal, json, math, sys
from hypercorn.asyncio import serve
from hypercorn.config import Config
from ministack.app import app
from ministack.services import dynamodb

batch_get_item = dynamodb._batch_get_item

def metered_batch_get_item(request):
    status, headers, body = batch_get_item(request)
    if status != 200 or request.get("ReturnConsumedCapacity", "NONE") == "NONE":
        return status, headers, body
    answer = json.loads(body)
    answer["ConsumedCapacity"] = []
    for name, asked in request["RequestItems"].items():
        found = answer["Responses"][name]
        units = sum(max(1, math.ceil(dynamodb._item_size_bytes(item) / 4096)) for item in found) + len(asked["Keys"]) - len(found)
        units *= 1.0 if asked.get("ConsistentRead") else 0.5
        answer["ConsumedCapacity"].append({"TableName": name, "CapacityUnits": units})
    return status, headers, json.dumps(answer).encode()

dynamodb._batch_get_item = metered_batch_get_item
decimal.DefaultContext.prec = 300
decimal.setcontext(decimal.DefaultContext)
config = Config()
config.bind = [f"fd://{sys.argv[1]}"]
config.graceful_timeout = 0.1
asyncio.run(serve(app, config, shutdown_trigger=lambda: asyncio.to_thread(sys.stdin.read)))
"""
"""The emulator adds numbers in its threads' decimal contexts, whose 28 digits round; DynamoDB refuses a sum of more than 38
digits. It does not report the units of BatchGetItem, of which each key costs at least one read, also without an item."""


@dataclass(frozen=True, slots=True)
class Aws:
    """A running emulator. `url` is the endpoint of every service."""

    url: str
    log: Path
    _numbers: Iterator[int] = field(default_factory=lambda: count(1), repr=False)

    def new_region(self) -> str:
        """Return a region without tables or user pools."""
        return f"us-test-{next(self._numbers)}"

    def tables_flags(self, url: str | None = None) -> list[str]:
        """Return the flags for tables in a new region of this emulator, through `url` if a proxy in front of it is given."""
        return ["--tables", f"dynamodb:{self.new_region()}", "--dynamodb-endpoint", url or self.url]


@contextmanager
def running(folder: Path) -> Iterator[Aws]:
    """Run an emulator within this block. `folder` gets its log."""
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
        "DOCKER_HOST": "unix:///nonexistent",  # at start it would remove containers, which may belong to others
    }


def _wait_healthy(aws: Aws, process: subprocess.Popen[bytes]) -> None:
    # The socket listens from the first moment, so that a request waits in its queue until the emulator accepts it.
    try:
        services = httpx2.get(f"{aws.url}/_ministack/health", timeout=WAIT_S, trust_env=False).json()["services"]
    except (httpx2.HTTPError, ValueError) as exc:
        raise AssertionError(f"the emulator ({process.poll()}) is not healthy:\n{aws.log.read_text()[-3000:]}") from exc
    assert services["dynamodb"], services
    assert services["cognito-idp"], services
