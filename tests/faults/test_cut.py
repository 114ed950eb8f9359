"""A connection between server and NATS that breaks in mid-publish, with and without the answers that were on it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.checker import judge
from tests.faults.conftest import SEED, Report
from tests.faults.load import Load, running_on
from tests.faults.outside import outside_nats
from tests.platform import Platform, running
from tests.relay import Relay, relayed

CUTS = 10
DEAF_S = 0.2
LONG_DEAF_S = 5.0
"""The server gives up waiting for an answer after 4 s, and publishes again what has a key."""

Cuttable = tuple[Platform, Relay]


@pytest.fixture
async def cuttable(tmp_path: Path) -> AsyncIterator[Cuttable]:
    """A platform and its wire to NATS, which this loop has to pass bytes along: so the platform is started in a thread."""
    with outside_nats(tmp_path / "data") as nats:
        async with relayed(nats.url) as wire:
            stack = ExitStack()
            try:
                platform = await asyncio.to_thread(stack.enter_context, running(tmp_path, ["--nats-urls", wire.url]))
                yield platform, wire
            finally:
                await asyncio.to_thread(stack.close)


async def cut(load: Load, wire: Relay, deaf_s: float = 0) -> None:
    """Breaks the connections in mid-publish, when what NATS answers has been lost for so long."""
    await load.mid_publish()
    wire.is_deaf = True
    await asyncio.sleep(deaf_s)
    wire.cut()
    wire.is_deaf = False


async def test_a_cut_connection_to_nats_loses_doubles_and_disorders_nothing(cuttable: Cuttable, report: Report) -> None:
    platform, wire = cuttable
    async with running_on(platform) as load:
        await load.acknowledged(100)
        await cut(load, wire)
        await cut(load, wire, DEAF_S)
        await load.acknowledged(100)
        verdict = judge(await load.end())
    report("cut connection to NATS", verdict)
    assert not verdict.findings, str(verdict)


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_cuts_at_any_moment_lose_double_and_disorder_nothing(cuttable: Cuttable, report: Report) -> None:
    platform, wire = cuttable
    chance = random.Random(SEED)
    async with running_on(platform) as load:
        for _ in range(CUTS):
            await load.acknowledged(1 + chance.choice((0, 30, 300)))
            await cut(load, wire, chance.choice((0, DEAF_S, LONG_DEAF_S)))
        await load.acknowledged(100)
        verdict = judge(await load.end())
    report(f"{CUTS} × cut connection to NATS", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"
