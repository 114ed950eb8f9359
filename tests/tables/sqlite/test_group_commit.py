from __future__ import annotations

import asyncio
import threading

import pytest

from artcafe import errors
from artcafe.tables.sqlite.group_commit import MAX_BATCH, MAX_WAITING, GroupCommit


class Commits:
    """A commit function that doubles numbers, records its batches, and can be paused."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.ended = False

    def commit(self, batch: list[int]) -> list[int]:
        self.batches.append(batch)
        self.begun.set()
        assert self.go_on.wait(5)
        if -1 in batch:
            raise RuntimeError("a mistake in the commit")
        return [2 * number for number in batch]

    def end(self) -> None:
        self.ended = True

    async def held(self) -> None:
        """Wait until a commit has begun; it continues on `go_on`."""
        assert await asyncio.to_thread(self.begun.wait, 5)


async def test_work_of_one_loop_turn_shares_a_commit_with_individual_answers() -> None:
    commits = Commits()
    group = GroupCommit("the test", commits.commit)
    async with asyncio.TaskGroup() as tasks:
        answers = [tasks.create_task(group.submit(number)) for number in range(10)]
    assert [answer.result() for answer in answers] == [2 * number for number in range(10)]
    assert commits.batches == [list(range(10))]
    await group.close(commits.end)


async def test_work_during_a_commit_waits_for_the_next_one_up_to_its_batch_limit() -> None:
    commits = Commits()
    group = GroupCommit("the test", commits.commit)
    commits.go_on.clear()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(group.submit(0))
        await commits.held()
        for number in range(1, MAX_BATCH + 2):
            tasks.create_task(group.submit(number))
        await asyncio.sleep(0)
        commits.go_on.set()
    assert [len(batch) for batch in commits.batches] == [1, MAX_BATCH, 1]
    await group.close(commits.end)


async def test_full_queue_refuses_the_next_work_at_once_and_serves_the_waiting() -> None:
    commits = Commits()
    group = GroupCommit("the test", commits.commit)
    commits.go_on.clear()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(group.submit(0))
        await commits.held()
        waiting = [tasks.create_task(group.submit(number)) for number in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(errors.Unavailable, match="the test cannot be reached now; nothing was changed"):
            await group.submit(1)
        commits.go_on.set()
    assert [task.result() for task in waiting] == [2 * number for number in range(MAX_WAITING)]
    assert await group.submit(1) == 2
    await group.close(commits.end)


async def test_work_cancelled_before_its_commit_is_dropped_and_later_is_committed() -> None:
    commits = Commits()
    group = GroupCommit("the test", commits.commit)
    commits.go_on.clear()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        committed = tasks.create_task(group.submit(1))
        beside = tasks.create_task(group.submit(2))
        await commits.held()
        dropped = tasks.create_task(group.submit(3))
        after = tasks.create_task(group.submit(4))
        await asyncio.sleep(0)
        committed.cancel()
        dropped.cancel()
        await asyncio.sleep(0)
        commits.go_on.set()
    assert commits.batches == [[1, 2], [4]]
    assert (beside.result(), after.result()) == (4, 8)
    await group.close(commits.end)


async def test_exception_in_a_commit_reaches_its_whole_batch_and_the_next_commit_runs() -> None:
    commits = Commits()
    group = GroupCommit("the test", commits.commit)

    async def mistake(number: int) -> str:
        with pytest.raises(RuntimeError) as failed:
            await group.submit(number)
        return str(failed.value)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        failures = [tasks.create_task(mistake(number)) for number in (1, -1)]
    assert [task.result() for task in failures] == ["a mistake in the commit"] * 2
    assert await group.submit(3) == 6
    await group.close(commits.end)


async def test_close_commits_accepted_work_ends_once_and_refuses_more() -> None:
    commits = Commits()
    group = GroupCommit("the test", commits.commit)
    commits.go_on.clear()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(group.submit(1))
        await commits.held()
        second = tasks.create_task(group.submit(2))
        await asyncio.sleep(0)
        closing = [tasks.create_task(group.close(commits.end)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(errors.Unavailable):
            await group.submit(3)
        with pytest.raises(errors.Unavailable):
            await group.run_exclusive(commits.end)
        assert not any(task.done() for task in closing)
        commits.go_on.set()
    assert (first.result(), second.result(), commits.ended) == (2, 4, True)
    await group.close(commits.end)


async def test_cancelled_close_can_be_repeated() -> None:
    commits = Commits()
    group = GroupCommit("the test", commits.commit)
    commits.go_on.clear()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(group.submit(1))
        await commits.held()
        closing = tasks.create_task(group.close(commits.end))
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.sleep(0)
        commits.go_on.set()
        await group.close(commits.end)
    assert commits.ended
