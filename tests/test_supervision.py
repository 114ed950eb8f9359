from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from artcafe.errors import Unavailable
from artcafe.supervision import Supervisor


async def test_failed_item_is_counted_and_logged_once_and_later_items_run() -> None:
    supervisor, done = Supervisor("test"), list[int]()
    with capture_logs() as logs:
        for number in range(10):
            with supervisor.contain(item=number):
                if number % 2:
                    raise ValueError(number)
                done.append(number)
    assert done == [0, 2, 4, 6, 8]
    assert supervisor.failures == 5
    (line,) = logs
    assert (line["event"], line["loop"], line["item"], line["failures"]) == ("loop.failed", "test", 1, 1)
    assert isinstance(line["exc_info"], ValueError)


async def test_each_type_of_failure_is_logged() -> None:
    supervisor = Supervisor("test")
    with capture_logs() as logs:
        for problem in (ValueError(), KeyError(), ValueError()):
            with supervisor.contain():
                raise problem
    assert [type(line["exc_info"]) for line in logs] == [ValueError, KeyError]


async def test_foreseen_exceptions_and_cancellation_pass() -> None:
    supervisor = Supervisor("test")
    with pytest.raises(Unavailable), supervisor.contain(Unavailable):
        raise Unavailable("the tables")
    with pytest.raises(asyncio.CancelledError), supervisor.contain():
        raise asyncio.CancelledError
    assert supervisor.failures == 0


async def test_loop_that_raises_is_restarted_until_it_returns() -> None:
    supervisor, starts = Supervisor("test"), 0

    async def run() -> None:
        nonlocal starts
        starts += 1
        if starts < 3:
            raise ValueError(starts)

    async with asyncio.timeout(20):
        await supervisor.keep(run, restart_s=0)
    assert (starts, supervisor.failures) == (3, 2)


async def test_cancellation_is_not_lost_when_the_cleanup_of_a_loop_fails() -> None:
    started = asyncio.Event()

    async def run() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("the connection is closed")

    supervisor = Supervisor("loop")
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(supervisor.keep(run, restart_s=0))
        await started.wait()
        task.cancel()
    assert task.cancelled()
    assert supervisor.failures == 1
