"""Group commit: concurrent work shares one commit in a dedicated thread. The owner supplies the commit function.

A flush to disk costs the same for one write and for hundreds. While one commit runs, the work of the next one queues.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from artcafe import errors

MAX_WAITING = 4096
MAX_BATCH = 512

Work = TypeVar("Work")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


@dataclass(slots=True)
class _Waiting(Generic[Work, Answer]):
    work: Work
    answer: asyncio.Future[Answer]


class GroupCommit(Generic[Work, Answer]):
    """Runs `commit` in a dedicated thread on the queued work, one commit at a time, with at most `MAX_BATCH` pieces.

    `commit` returns one answer per piece, in order; if it raises, all of them get the exception. Belongs to the loop of its first
    use.
    """

    def __init__(self, name: str, commit: Callable[[list[Work]], list[Answer]]) -> None:
        self._name = name
        self._commit = commit
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        self._waiting: deque[_Waiting[Work, Answer]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._open = True
        self._ended = False

    async def submit(self, work: Work) -> Answer:
        """Queue the work and return its answer after its commit.

        Work cancelled before its commit is dropped; cancelled later, it is committed and the answer is discarded. With
        `MAX_WAITING` pieces queued, the next is refused at once: the disk is slower than its users, and a longer queue would only
        delay everybody. Raises `errors.Unavailable` then, and after `close`.
        """
        if not self._open or len(self._waiting) >= MAX_WAITING:
            raise errors.Unavailable(self._name)
        loop = asyncio.get_running_loop()
        waiting = _Waiting[Work, Answer](work, loop.create_future())
        self._waiting.append(waiting)
        if self._idle.is_set():
            self._idle.clear()
            # Not at once: other tasks in this turn of the loop may add work to the same commit.
            loop.call_soon(self._start_commit)
        return await waiting.answer

    async def run_exclusive(self, function: Callable[[], Result]) -> Result:
        """Run a function in the thread between two commits. Raises `errors.Unavailable` after `close`."""
        if not self._open:
            raise errors.Unavailable(self._name)
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def close(self, last: Callable[[], None]) -> None:
        """Refuse new work, commit the queue, run `last` in the thread and stop it. May be repeated."""
        self._open = False
        await self._idle.wait()
        if not self._ended:
            self._ended = True
            ending = asyncio.get_running_loop().run_in_executor(self._thread, last)
            self._thread.shutdown(wait=False)
            await ending

    def _start_commit(self) -> None:
        """Start the next commit, or become idle."""
        batch: list[_Waiting[Work, Answer]] = []
        while self._waiting and len(batch) < MAX_BATCH:
            waiting = self._waiting.popleft()
            if not waiting.answer.cancelled():
                batch.append(waiting)
        if not batch:
            self._idle.set()
            return
        work = [waiting.work for waiting in batch]
        commit = asyncio.get_running_loop().run_in_executor(self._thread, self._commit, work)
        commit.add_done_callback(lambda done: self._finish_commit(batch, done))

    def _finish_commit(self, batch: list[_Waiting[Work, Answer]], commit: asyncio.Future[list[Answer]]) -> None:
        failure = commit.exception()
        answers = [] if failure is not None else commit.result()
        for index, waiting in enumerate(batch):
            if waiting.answer.done():
                continue
            if failure is not None:
                waiting.answer.set_exception(failure)
            else:
                waiting.answer.set_result(answers[index])
        # Callers just answered run first, so that their next work joins the next commit.
        asyncio.get_running_loop().call_soon(self._start_commit)
