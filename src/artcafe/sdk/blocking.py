"""Calls from synchronous code to the one event loop that runs in the background for all `artcafe.sync` agents."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
InnerT_co = TypeVar("InnerT_co", covariant=True)

_END: Final = object()

MAX_THREADS: Final = 256
"""Functions of the program that run at once, over all agents. Further ones wait."""
CANCEL_S: Final = 5.0
"""How long Ctrl-C waits for the interrupted call to end."""


class BackgroundLoop:
    """An event loop in a daemon thread, started at its first use, and once more in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        """Return the running loop. Raises RuntimeError on its own thread, which a blocking call would stop for ever."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop.set_default_executor(ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="artcafe-handler"))
                self._thread = threading.Thread(target=self._loop.run_forever, name="artcafe", daemon=True)
                self._thread.start()
            if threading.current_thread() is self._thread:
                raise RuntimeError("a blocking call on the event loop of artcafe.sync: use artcafe.Agent in coroutines")
            return self._loop


_background = BackgroundLoop()


def _after_fork() -> None:
    global _background  # noqa: PLW0603 - the parent's thread does not exist in the child
    _background = BackgroundLoop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Call(Generic[T]):
    """A coroutine at work on the background loop, in the context of its caller."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._done: Future[T] = Future()
        self._task: asyncio.Task[T] | None = None
        self._loop = _background.get()
        self._loop.call_soon_threadsafe(self._begin, coroutine)

    def result(self) -> T:
        """Return the result, or raise the error. If this is interrupted, by Ctrl-C for example, the coroutine is cancelled."""
        try:
            return self._done.result()
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> T | None:
        """Cancel the coroutine, wait for its end, and return its result if it has one nevertheless. May be repeated."""
        self._loop.call_soon_threadsafe(self._cancel)
        try:
            return None if self._done.exception(CANCEL_S) is not None else self._done.result()
        except (CancelledError, TimeoutError):
            return None

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(coroutine)  # It belongs to the thread that waits in `result`.
        self._task.add_done_callback(self._finish)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _finish(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._done.cancel()
            self._done.set_running_or_notify_cancel()
        elif (error := task.exception()) is not None:
            self._done.set_exception(error)
        else:
            self._done.set_result(task.result())


def call(awaitable: Awaitable[T]) -> T:
    """Return the result of an awaitable, which the background loop runs."""
    try:
        _background.get()
    except RuntimeError:
        if inspect.iscoroutine(awaitable):
            awaitable.close()  # Python would report that it was never awaited.
        raise
    return Call(_await(awaitable)).result()


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def post(function: Any, *arguments: object) -> None:
    """Let the background loop call a function soon. Signal handlers may use it."""
    _background.get().call_soon_threadsafe(function, *arguments)


class Blocking(Generic[InnerT_co]):
    """The synchronous form of an object, whose methods are made of its by `blocking` and `blocking_items`."""

    def __init__(self, inner: InnerT_co) -> None:
        self._inner = inner

    def __repr__(self) -> str:
        return f"sync.{self._inner!r}"


def blocking(method: Callable[Concatenate[T, P], Awaitable[R]]) -> Callable[Concatenate[Blocking[T], P], R]:
    """Return the synchronous form of a coroutine method, with its parameters and documentation."""

    @functools.wraps(method)
    def wait(self: Blocking[T], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return call(method(self._inner, *args, **kwargs))

    return wait


def blocking_items(method: Callable[Concatenate[T, P], AsyncIterator[R]]) -> Callable[Concatenate[Blocking[T], P], Iterator[R]]:
    """Return the synchronous form of a method with an asynchronous iterator, such as a list over all pages."""

    @functools.wraps(method)
    def iterate(self: Blocking[T], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        items = method(self._inner, *args, **kwargs)
        end: Any = _END
        while (item := call(anext(items, end))) is not end:
            yield item

    return iterate
