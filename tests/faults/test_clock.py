"""The clock of a server jumps an hour ahead and back: nothing is lost, nothing that was acknowledged is repeated, no task has two
holders.

Debian's libfaketime shifts the time of day of the server's process, and leaves the monotonic clock alone, as `settimeofday` does.
nats-server is a static program that reads the real clock.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.faults.checker import judge
from tests.faults.conftest import SEED, QueueReport, Report
from tests.faults.load import running_on
from tests.faults.pull_checker import PullBroken
from tests.faults.pull_traffic import PullTraffic
from tests.faults.queue_checker import judge_queue
from tests.faults.queue_load import working_on
from tests.faults.traffic import advance_all, end_all, running_all
from tests.platform import Platform, running

JUMPS_S: Final = (3600, 0, 3600, 0)
"""The shift of the clock after each jump: an hour ahead, and back."""
SEEN_S: Final = 2.0
"""libfaketime reads its file again after a second."""


class Clock:
    """The clock of the server's process, shifted by a file."""

    def __init__(self, platform: Platform, shift: Path) -> None:
        self.platform, self._shift = platform, shift

    async def jump(self, to_s: int) -> None:
        """Shift the clock by so many seconds from the real time."""
        self._shift.write_text(f"{to_s:+d}\n")
        await asyncio.sleep(SEEN_S)


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[Clock]:
    """Return a platform whose server has a clock of its own."""
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        pytest.skip("libfaketime is not here (Debian: apt-get install libfaketime)")
    shift = tmp_path / "shift"
    shift.write_text("+0\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(libraries[0]))
        patch.setenv("FAKETIME_TIMESTAMP_FILE", str(shift))
        patch.setenv("FAKETIME_CACHE_DURATION", "1")
        patch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        with running(tmp_path / "platform", ["--cursor-write-s", "0.3"], python=sys.executable) as platform:
            for name in ("LD_PRELOAD", "FAKETIME_TIMESTAMP_FILE"):
                patch.delenv(name)
            yield Clock(platform, shift)


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.promise("1a", "3c", "4a", "5a")
async def test_jumping_clock_loses_doubles_and_reorders_nothing(clock: Clock, report: Report) -> None:
    async with running_on(clock.platform) as load:
        await load.acknowledged(100)
        for shift_s in JUMPS_S:
            await clock.jump(shift_s)
            await load.acknowledged(100)
        verdict = judge(await load.end())
    report("4 × jump of the server's clock by an hour, ahead and back", verdict)
    assert not verdict.findings, str(verdict)


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.promise("9a", "9b")
async def test_jumping_clock_gives_no_task_two_holders_and_loses_none(clock: Clock, queue_report: QueueReport) -> None:
    async with working_on(clock.platform, SEED) as load:
        await load.done(50)
        for shift_s in JUMPS_S:
            await clock.jump(shift_s)
            await load.done(50)
        verdict = judge_queue(await load.end(is_faulted=True))
    queue_report("4 × jump of the server's clock by an hour, ahead and back", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.promise("p6", "p8")
async def test_jumping_clock_stops_no_agent_that_pulls(clock: Clock) -> None:
    async with running_all(clock.platform, [PullTraffic], SEED) as all_of:
        await advance_all(all_of, 20)
        for shift_s in JUMPS_S:
            await clock.jump(shift_s)
            await advance_all(all_of, 20)
        rulings = await end_all(all_of, is_faulted=True)
    # A message with an `expires_at` expires by the server's clock, and so an hour early while that is ahead.
    found = [each for each in rulings["pulls"].violations if each.broken is not PullBroken.FALSE_GAP]
    assert not found, f"ARTCAFE_TEST_SEED={SEED}: {rulings['pulls']}"
    print(f"pulls under jumps of the clock: {dict(rulings['pulls'].amounts)}")  # noqa: T201 (it is the result)
