"""Agents that connect and disconnect in a fleet whose NATS cluster repeatedly loses the leader of their log."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from typing import Final

import pytest

from tests.faults.checker import judge
from tests.faults.conftest import SEED, Report
from tests.faults.flapping import flapping_on
from tests.faults.test_fleet import FLAGS, leader_of
from tests.fleet import Fleet, running_fleet

KILLS: Final = int(os.environ.get("ARTCAFE_TEST_KILLS", "5"))
"""Kills more leaders with ARTCAFE_TEST_KILLS=30."""
EVERY_S: Final = 8.0
DOWN_S: Final = (1.0, 8.0)


@pytest.fixture
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), nats=3, flags=FLAGS) as fleet:
        yield fleet


@pytest.mark.faults
@pytest.mark.timeout(300 + 30 * KILLS)
@pytest.mark.promise("5a", "8c", "11d")
async def test_agents_that_connect_and_disconnect_miss_nothing_while_leaders_are_killed(clustered: Fleet, report: Report) -> None:
    chance, nats = random.Random(f"{SEED} leaders"), clustered.nats
    async with flapping_on(clustered) as load:
        await load.acknowledged(50)
        for _ in range(KILLS):
            await load.note_cursors()
            leader = await leader_of(clustered, load.cast.tenant)
            down_s = chance.uniform(*DOWN_S)
            nats.kill(leader)
            await asyncio.sleep(down_s)
            nats.start(nats.node(leader))
            await asyncio.sleep(max(1.0, EVERY_S - down_s))
        await load.acknowledged(50)
        verdict = judge(await load.end(is_retried=True))

    report(f"{KILLS} × kill -9 of the leader of three nats-servers, agents come and go", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"
