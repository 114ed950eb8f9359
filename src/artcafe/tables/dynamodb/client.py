"""The DynamoDB client: endpoint, timeouts, retries and error translation. The only module importing AWS's libraries.

AWS's standard retry mode covers throttling, server errors, lost connections and lost answers, five attempts in all. Conflicts of
transactions, and throttling inside a transaction, are left to the caller by AWS's client; this module retries them.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from artcafe import errors
from artcafe.observe.logs import log
from artcafe.tables.dynamodb.permissions import DENIED, Denials

# Read once, when botocore is imported. Without it the client waits up to a second before any first retry.
os.environ.setdefault("AWS_NEW_RETRIES_2026", "true")

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError  # noqa: A004 - AWS's own names
from botocore.loaders import Loader, create_loader

CONFIG: Final = {
    "connect_timeout": 2,
    "read_timeout": 5,
    "max_pool_connections": 64,
    "retries": {"mode": "standard", "total_max_attempts": 5},
}
"""The client's defaults are a timeout of 60 s and 10 connections, too long and too few for a server (design, decision 10)."""

CALL_S: Final = 12.0
"""The timeout of a call including all retries; two slow answers fit in."""

MAX_CALLS: Final = 1024
"""Maximum of calls in flight or waiting for a connection; one more would be late, and delay the others."""

NAME: Final = "the tables on DynamoDB"
"""The name in error messages to peers; only the log contains the endpoint."""

RECOVERED_AFTER_S: Final = 10.0
"""An outage is over after this time without a failed call."""

MAX_TRIES: Final = 10
FIRST_WAIT_S: Final = 0.025
LONGEST_WAIT_S: Final = 1.0

_ITEM_ERRORS: Final = {"ConditionalCheckFailedException", "TransactionCanceledException", "ValidationException"}
"""Errors caused by the items of a request or in the table."""

_THROTTLED: Final = {
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionInProgressException",
}
_WRITES: Final = {"put_item", "update_item", "delete_item", "transact_write_items"}

_TRANSIENT_REASONS: Final = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
"""Reasons of a cancelled transaction that go away with a retry."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A region of AWS, or a replacement endpoint at `url`. Credentials come from AWS's credential chain."""

    region: str
    url: str | None = None

    def __str__(self) -> str:
        return f"DynamoDB in {self.region}" if self.url is None else f"DynamoDB at {self.url}"


@dataclass(frozen=True, slots=True)
class Consumed:
    """The capacity units charged for one call, by table name."""

    operation: str
    units: Mapping[str, float]


class CallRefused(Exception):
    """DynamoDB refused a call, and a retry would not help. `answer` is the error response."""

    def __init__(self, code: str, message: str, answer: Mapping[str, Any]) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.answer = code, message, answer


@functools.cache
def _loader(folders: str | None) -> Loader:
    """Return the loader of AWS's descriptions of its services, which caches what it has read.

    One for all clients of the process: reading them blocks the event loop for 0.1 s, and a session of its own has no cache yet.
    """
    return create_loader(folders)


class DynamoDbClient:
    """A client of one endpoint, created by `DynamoDbClient.open`. Belongs to the loop it was opened on."""

    def __init__(
        self, endpoint: Endpoint, service: Any, stack: AsyncExitStack, consumed: Callable[[Consumed], None] | None
    ) -> None:
        """Called by `open`."""
        self.endpoint = endpoint
        self._service, self._stack, self._consumed = service, stack, consumed
        self._calls = 0
        self._is_open, self._idle = True, asyncio.Event()
        self._idle.set()
        self.denials = Denials(str(endpoint))
        self._failure_code: str | None = None
        self._last_failure_at = 0.0

    @classmethod
    async def open(cls, endpoint: Endpoint, consumed: Callable[[Consumed], None] | None = None) -> DynamoDbClient:
        """Create a client, without connecting.

        `consumed` is called with the units of each item request. Raises `StartRefused`.
        """
        stack = AsyncExitStack()
        try:
            session = get_session()
            session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
            maker = session.create_client(
                "dynamodb", region_name=endpoint.region, endpoint_url=endpoint.url, config=AioConfig(**CONFIG)
            )
            service = await stack.enter_async_context(maker)
        except (BotoCoreError, ValueError) as exc:
            raise errors.StartRefused(
                f"{endpoint} cannot be used: {str(exc).rstrip('.')}",
                "check ARTCAFE_TABLES=dynamodb:REGION, ARTCAFE_DYNAMODB_ENDPOINT and the AWS_… variables",
            ) from exc
        return cls(endpoint, service, stack, consumed)

    async def items(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Call an operation on items as `call` does, and report its units to the callback of `open`.

        Raises `CallRefused` only for an error caused by an item: a condition, its transaction, or a value; `errors.TablesDenied`
        without a permission.
        """
        if self._consumed is not None:
            request = {**request, "ReturnConsumedCapacity": "TOTAL"}
        try:
            answer = await self.call(operation, request)
        except CallRefused as refused:
            if refused.code in _ITEM_ERRORS:
                if refused.code != "ValidationException":  # A condition is evaluated for those who may write.
                    self.denials.clear(operation, request)
                raise
            if refused.code == DENIED:
                self.denials.note(operation, request, refused.message)
                raise errors.TablesDenied(NAME) from refused
            raise self.unavailable(operation, refused.code, refused.message) from refused
        self.denials.clear(operation, request)
        if self._consumed is not None:
            charged = answer.get("ConsumedCapacity", [])
            tables = charged if isinstance(charged, list) else [charged]
            self._consumed(Consumed(operation, {table["TableName"]: table["CapacityUnits"] for table in tables}))
        return answer

    async def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return DynamoDB's answer. Raises `CallRefused` for a permanent error, and `errors.Unavailable` for a temporary one."""
        if not self._is_open or self._calls >= MAX_CALLS:
            raise errors.Unavailable(NAME)
        self._calls += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(CALL_S):
                answer = await self._call_with_retries(operation, request)
        except (BotoCoreError, TimeoutError) as exc:
            was_sent = isinstance(exc, HTTPClientError | ConnectionError | TimeoutError)
            raise self.unavailable(operation, type(exc).__name__, str(exc), was_sent=was_sent) from exc
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()
        if self._failure_code is not None and time.monotonic() - self._last_failure_at >= RECOVERED_AFTER_S:
            log.info("tables.available")
            self._failure_code = None
        return answer

    async def close(self) -> None:
        """Close the client after answering every call; later calls raise `Unavailable`. May be repeated."""
        self._is_open = False
        await self._idle.wait()
        await self._stack.aclose()

    def unavailable(self, operation: str, code: str, message: str, *, was_sent: bool = False) -> errors.Unavailable:
        """Return the error to raise. `was_sent`: a write may have been applied, by this or an earlier attempt.

        Logs the cause once for each error code, until calls have succeeded for `RECOVERED_AFTER_S`: every failing call would log
        the same.
        """
        self._last_failure_at = time.monotonic()
        if self._failure_code != code:
            self._failure_code = code
            log.warning("tables.unavailable", where=str(self.endpoint), operation=operation, code=code, message=message)
        kind = errors.Unanswered if was_sent and operation in _WRITES else errors.Unavailable
        return kind(NAME)

    async def _call_with_retries(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        call, pauses = getattr(self._service, operation), backoff_delays()
        while True:
            try:
                answer: dict[str, Any] = await call(**request)
            except ClientError as exc:
                refused = _refused(exc)
                is_transient = _is_transient(refused)
                pause_s = next(pauses, None) if is_transient else None
                if pause_s is None and not is_transient and not _is_server_fault(refused):
                    raise refused from exc
                if pause_s is None:
                    was_sent = not is_transient and refused.code not in _THROTTLED
                    raise self.unavailable(operation, refused.code, refused.message, was_sent=was_sent) from exc
            else:
                return answer
            await asyncio.sleep(pause_s)


def backoff_delays() -> Iterator[float]:
    """Yield the seconds to wait before each retry: "full jitter" from 25 ms to 1 s keeps colliding calls apart."""
    for number in range(MAX_TRIES):
        yield random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**number))  # noqa: S311 - load spreading, not a secret


def reasons_of(refused: CallRefused) -> list[dict[str, Any]]:
    """Return the reasons of a cancelled transaction, one per write; the code is `None` for a write without an error."""
    reasons: list[dict[str, Any]] = refused.answer.get("CancellationReasons", [])
    return reasons


def _refused(exc: ClientError) -> CallRefused:
    error = exc.response.get("Error", {})
    return CallRefused(error.get("Code", "Unknown"), error.get("Message", str(exc)), exc.response)


def _is_server_fault(refused: CallRefused) -> bool:
    """Return whether the error is DynamoDB's own and all retries failed."""
    return refused.code in _THROTTLED or refused.answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500


def _is_transient(refused: CallRefused) -> bool:
    """Return whether the error is temporary but not retried by AWS's client."""
    if refused.code == "TransactionConflictException":
        return True
    codes = {reason.get("Code", "None") for reason in reasons_of(refused)} - {"None"}
    return refused.code == "TransactionCanceledException" and bool(codes) and codes <= _TRANSIENT_REASONS
