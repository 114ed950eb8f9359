"""A proxy in front of the AWS emulator that injects what the emulator never does: throttling, failures, conflicts, delays, lost
answers.

It runs in a thread of its own, so that tests may wait for processes that call it.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeVar

import httpx2

from tests.plain_http import NO_AUTHORITIES

Result = TypeVar("Result")

WRITES: Final = ("PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems")
READS: Final = ("GetItem", "BatchGetItem", "Query", "Scan")
SLOW_S: Final = 5.5
"""Longer than the client waits for an answer."""


class Fault(Enum):
    """The effect on a call."""

    THROTTLED = "throttled"
    FAILED = "answered 500"
    DENIED = "refused, for a right is missing"
    CONFLICT = "in conflict with a transaction"
    LOST = "made, and its answer lost"
    SLOW = "made, and answered too late"
    UNREAD = "no key of the batch read"
    HELD = "held until released"


@dataclass
class Rule:
    """Fails every `every`-th call of these operations, at most `most` times."""

    fault: Fault
    operations: tuple[str, ...]
    every: int
    most: int | None
    seen: int = 0
    struck: int = 0
    first: threading.Event = field(default_factory=threading.Event)
    """Set after the first failed call."""

    def strikes(self, operation: str) -> bool:
        """Count the call, and return whether it fails."""
        if operation not in self.operations or (self.most is not None and self.struck >= self.most):
            return False
        self.seen += 1
        is_struck = self.seen % self.every == 0
        if is_struck:
            self.struck += 1
            self.first.set()
        return is_struck


class FaultyAws:
    """A running proxy. `calls` counts the calls by operation; `url` replaces the emulator's."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-aws", daemon=True)
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._http = httpx2.AsyncClient(base_url=target, trust_env=False, verify=NO_AUTHORITIES, timeout=30)
        self._rules: list[Rule] = []
        self._released = asyncio.Event()
        self._port = 0
        self.calls: Counter[str] = Counter()
        self.tables: Counter[tuple[str, str]] = Counter()
        """Counts of calls by operation and table."""
        self.allowed: frozenset[str] | None = None
        """The actions that a policy allows; None: all."""
        self.denied: set[tuple[str, str]] = set()
        """The actions on tables that a policy denies."""
        self.is_terse = False
        """Whether a denial does not name its permission, as that of another service than AWS."""
        self.refused: Counter[tuple[str, str]] = Counter()
        """Counts of the calls that a policy has refused, by action and table."""
        self.states: dict[str, str] = {}
        """The state that DescribeTable reports for a table, by its name."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._thread.start()
        self.open()

    def stop(self) -> None:
        self.shut()
        self._in_loop(self._http.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def strike(self, fault: Fault, *operations: str, every: int = 1, most: int | None = None) -> Rule:
        """Inject faults from now on, until `spare`; several rules are checked in order. Without operations: all of them."""
        rule = Rule(fault, operations or (*WRITES, *READS), every, most)
        self._rules.append(rule)
        return rule

    def spare(self) -> None:
        """Inject no more faults, and release held calls."""
        self._rules.clear()
        self.allowed, self.denied, self.is_terse = None, set(), False
        self._loop.call_soon_threadsafe(self._released.set)

    def shut(self) -> None:
        """Refuse connections, and break the open ones."""
        self._in_loop(self._shut())

    def open(self) -> None:
        """Listen: the first time on a free port, then on the same one again."""
        self._in_loop(self._open())

    def _in_loop(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _open(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self._port, backlog=1024)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def _shut(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, httpx2.HTTPError):
                while await self._one(reader, writer):
                    pass
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    def _in_state(self, operation: str, body: bytes, content: bytes) -> bytes:
        state = self.states.get(json.loads(body).get("TableName", "")) if operation == "DescribeTable" else None
        if state is None:
            return content
        described = json.loads(content)
        described["Table"]["TableStatus"] = state
        return json.dumps(described).encode()

    def _denial(self, operation: str, body: bytes) -> tuple[int, bytes] | None:
        """Return AWS's answer to a call that the policies do not allow, or None."""
        for action, table in _permissions_of(operation, json.loads(body)):
            if (action, table) in self.denied or (self.allowed is not None and action not in self.allowed):
                self.refused[action, table] += 1
                return _error(400, "AccessDeniedException") if self.is_terse else _access_denied(action, table)
        return None

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Handle one call; return whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        lower = {name.lower(): value for name, value in headers.items()}
        body = await reader.readexactly(int(lower.get("content-length", "0")))
        operation = lower.get("x-amz-target", "").rpartition(".")[2]
        self.calls[operation] += 1
        self.tables.update((operation, table) for table in _tables_in(body))
        fault = next((rule.fault for rule in self._rules if rule.strikes(operation)), None)
        if fault is Fault.HELD:
            self._released.clear()
            await self._released.wait()
        answer = _refusal(fault, operation, body) or self._denial(operation, body)
        if answer is None:
            made = await self._http.post("/", content=body, headers={name: headers[name] for name in headers})
            answer = made.status_code, self._in_state(operation, body, made.content)
        if fault is Fault.LOST:
            return False
        if fault is Fault.SLOW:
            await asyncio.sleep(SLOW_S)
        status, content = answer
        writer.write(
            f"HTTP/1.1 {status} x\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        await writer.drain()
        return True


def _tables_in(body: bytes) -> set[str]:
    request = json.loads(body)
    actions = [action for each in request.get("TransactItems", []) for action in each.values()]
    return {*request.get("RequestItems", ()), *(each["TableName"] for each in [request, *actions] if "TableName" in each)}


def _permissions_of(operation: str, request: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the actions that a call needs, and their tables (AWS: "DynamoDB API permissions", and "IAM and transactions")."""
    kinds = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}
    for write in request.get("TransactItems", []):
        yield from ((kinds[kind], each["TableName"]) for kind, each in write.items())
    yield from ((operation, table) for table in request.get("RequestItems", ()))
    if "TransactItems" not in request and "RequestItems" not in request:
        yield operation, request.get("TableName", "*")
    if request.get("Tags"):
        yield "TagResource", request["TableName"]


def _access_denied(action: str, table: str) -> tuple[int, bytes]:
    user, resource = "arn:aws:sts::123456789012:assumed-role/artcafe/i-1", "arn:aws:dynamodb:us-test-1:123456789012:table/"
    text = f"User: {user} is not authorized to perform: dynamodb:{action} on resource: {resource}{table}"
    return _error(
        400, "AccessDeniedException", message=f"{text} because no identity-based policy allows the dynamodb:{action} action"
    )


def _refusal(fault: Fault | None, operation: str, body: bytes) -> tuple[int, bytes] | None:
    """Return the answer of a call that the emulator does not receive."""
    if fault is Fault.FAILED:
        return _error(500, "InternalServerError")
    if fault is Fault.DENIED:
        action, table = next(_permissions_of(operation, json.loads(body)))
        return _access_denied(action, table)
    if fault is Fault.UNREAD:
        request = json.loads(body)
        return 200, json.dumps({"Responses": {}, "UnprocessedKeys": request["RequestItems"]}).encode()
    if fault not in {Fault.THROTTLED, Fault.CONFLICT}:
        return None
    if operation == "TransactWriteItems":
        code = "ThrottlingError" if fault is Fault.THROTTLED else "TransactionConflict"
        others = [{"Code": "None"}] * (len(json.loads(body)["TransactItems"]) - 1)
        return _error(400, "TransactionCanceledException", CancellationReasons=[{"Code": code, "Message": "x"}, *others])
    return _error(400, "ThrottlingException" if fault is Fault.THROTTLED else "TransactionConflictException")


def _error(status: int, code: str, **more: object) -> tuple[int, bytes]:
    return status, json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "injected"} | more).encode()


@contextmanager
def faulty(target: str) -> Iterator[FaultyAws]:
    """Run a proxy in front of the emulator at `target`, without faults yet."""
    proxy = FaultyAws(target)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.spare()
        proxy.stop()
