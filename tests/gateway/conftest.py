"""The event loops of these tests: uvloop, as in production, and for slow readers also asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return uvloop, and in `test_slow_readers` both loops."""
    return LOOPS if item.path.name == "test_slow_readers.py" else {"uvloop": LOOPS["uvloop"]}
