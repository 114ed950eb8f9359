"""A process that is stopped for longer than others wait for its answer, and then continues as if nothing had happened."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from tests.faults.checker import judge
from tests.faults.conftest import Report
from tests.faults.load import running_on
from tests.faults.processes import frozen
from tests.platform import Platform

PAUSE_S: Final = 6.0
"""The server waits 4 s for NATS's answer; then it publishes messages with a key again, and NATS receives both."""


@pytest.mark.faults
@pytest.mark.timeout(180)
@pytest.mark.parametrize("victim", ["nats-server", "the server"])
@pytest.mark.promise("3c")
async def test_pause_during_publishes_loses_doubles_and_reorders_nothing(platform: Platform, report: Report, victim: str) -> None:
    assert platform.process is not None
    async with running_on(platform) as load:
        await load.acknowledged(300)
        await load.mid_publish()
        with frozen(platform.nats_pid if victim == "nats-server" else platform.process.pid):
            await asyncio.sleep(PAUSE_S)
        await load.acknowledged(300)
        verdict = judge(await load.end())
    report(f"{PAUSE_S:g} s pause of {victim}", verdict)
    assert not verdict.findings, str(verdict)
