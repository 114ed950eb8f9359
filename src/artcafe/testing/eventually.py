"""Waiting for a condition that becomes true after a while."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, overload

T = TypeVar("T")

POLL_S: Final = 0.02


@overload
async def eventually(probe: Callable[[], Awaitable[T]], *, within_s: float = 30.0) -> T: ...


@overload
async def eventually(probe: Callable[[], T], *, within_s: float = 30.0) -> T: ...


async def eventually(probe: Callable[[], Any], *, within_s: float = 30.0) -> Any:
    """Call `probe` until it returns something true, and return that. It may be a coroutine function, and may assert.

    Raises an AssertionError after `within_s`: its own, or one with its last result. Its other errors are raised at once.
    """
    failed = AssertionError(f"no result within {within_s:g} s")
    try:
        async with asyncio.timeout(within_s) as bound:
            while True:
                try:
                    found = probe()
                    result = await found if inspect.isawaitable(found) else found
                    if result:
                        return result
                    failed = AssertionError(f"still {result!r} after {within_s:g} s")
                except AssertionError as exc:
                    failed = exc
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        if not bound.expired():
            raise
    raise failed
