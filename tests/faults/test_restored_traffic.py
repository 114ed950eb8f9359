"""A backup that was made under requests, pulls, receipts and scheduled messages, and restored when all clients were ahead of it.

Agents that pull remember their last pages, and acknowledge them after the restore as if they had noticed nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.faults.all_traffic import KINDS, check
from tests.faults.conftest import SEED, RulingReport
from tests.faults.restoring import back_up, restore
from tests.faults.traffic import advance_all, end_all, running_all
from tests.platform import running

STEPS: Final = 50
"""Steps of each traffic before the backup, between it and the restore, and afterwards."""


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.promise("r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9")
@pytest.mark.promise("q1", "q3", "q4", "q12", "q13", "p6", "p8", "p17", "p18", "c4", "c9", "c10", "e2", "e3", "s3", "s4", "s5")
async def test_requests_pulls_receipts_and_scheduled_messages_after_a_restore_of_a_backup_they_are_ahead_of(
    tmp_path: Path, ruling_report: RulingReport
) -> None:
    """Nothing but the restore excuses anything."""
    with running(tmp_path / "platform", ["--cursor-write-s", "0.3"]) as platform:
        async with running_all(platform, KINDS, SEED) as all_of:
            await advance_all(all_of, 2 * STEPS)
            await back_up(platform, all_of, tmp_path / "backup.tar")
            await advance_all(all_of, STEPS)
            await restore(platform, all_of, tmp_path / "backup.tar")
            await advance_all(all_of, STEPS)
            rulings = await end_all(all_of, is_faulted=False)
    ruling_report("restore of a backup that all clients are ahead of", rulings)
    check(rulings, SEED)
