"""The table engines: every test that asks for `tables` runs on each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from artcafe.tables.catalog import Environment
from artcafe.tables.port import Tables
from artcafe.tables.sqlite import Sqlite


async def sqlite(folder: Path) -> Tables:
    return await Sqlite.open(folder / "tables.db", Environment.PROD)


ENGINES: dict[str, Callable[[Path], Awaitable[Tables]]] = {"sqlite": sqlite}


@pytest.fixture(params=ENGINES)
async def tables(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Tables]:
    engine = await ENGINES[request.param](tmp_path)
    yield engine
    await engine.close()
