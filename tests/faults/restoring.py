"""Back up a platform under traffic, and restore that backup when the clients are ahead of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from artcafe.cli.operate.archive import open_archive
from artcafe.sdk.client import Client
from tests.faults.restores import BackupBegan, BackupEnded, Restored, Stage
from tests.faults.traffic import Traffic
from tests.flows.test_restore import artcafe
from tests.platform import Platform

QUIET_S = 1.0
"""For clients to read what a stopped server has sent them."""


async def back_up(platform: Platform, all_of: Sequence[Traffic], file: Path) -> None:
    """Write a backup of the running platform."""
    for traffic in all_of:
        await traffic.reach(Stage.BEFORE_BACKUP)
    for traffic in all_of:
        traffic.mark(BackupBegan(time.monotonic()))
    await asyncio.to_thread(artcafe, "backup", "--data-dir", platform.data, file)
    for traffic in all_of:
        traffic.mark(BackupEnded(time.monotonic()))
    for traffic in all_of:
        await traffic.reach(Stage.AFTER_BACKUP)


async def restore(platform: Platform, all_of: Sequence[Traffic], file: Path) -> None:
    """Act as an operator: stop the server, restore the backup in place of its folder, and start on it. Read the lost logs."""
    lost, ends = Platform(platform.folder / f"lost {time.monotonic_ns()}"), last_seqs(file)
    await asyncio.to_thread(platform.stop)
    lost.folder.mkdir()
    platform.data.rename(lost.data)
    await asyncio.sleep(QUIET_S)
    await asyncio.to_thread(artcafe, "restore", file, "--data-dir", platform.data)
    for traffic in all_of:
        traffic.mark(Restored(ends.get(traffic.cast.tenant, 0), time.monotonic()))
    await asyncio.to_thread(platform.start)
    for traffic in all_of:
        traffic.restored_at = time.time()
    for traffic in all_of:
        await traffic.reach(Stage.AFTER_RESTORE)
    await _read_lost(lost, all_of)


def last_seqs(file: Path) -> Mapping[str, int]:
    """Return the last sequence of each tenant's log in a backup."""
    with open_archive(file) as archive:
        return {str(stream.tenant_id): stream.saved.last_seq for stream in archive.manifest.logs}


async def _read_lost(lost: Platform, all_of: Sequence[Traffic]) -> None:
    """Run a platform on the lost files, for nobody but the checkers."""
    await asyncio.to_thread(lost.start)
    try:
        for traffic in all_of:
            async with Client(lost.url, traffic.cast.token) as rest:
                await traffic.read_lost(rest)
    finally:
        await asyncio.to_thread(lost.stop)
