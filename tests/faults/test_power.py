"""A power cut: unflushed data is lost. Nothing acknowledged is lost, in the log or in the tables; controls lose data."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from artcafe.errors import OurFault
from artcafe.sdk.client import Client
from artcafe.sdk.messages import Receipt
from artcafe.tables.sqlite import file as sqlite_file
from tests.conftest import Require
from tests.faults import disk as disks
from tests.faults.all_traffic import FEW, KINDS, check, note_kill
from tests.faults.checker import Broken, judge
from tests.faults.conftest import SEED, QueueReport, Report, RulingReport
from tests.faults.disk import Disk
from tests.faults.load import Load, running_on
from tests.faults.processes import frozen
from tests.faults.pull_checker import PullBroken
from tests.faults.queue_checker import Put, judge_queue
from tests.faults.queue_load import working_on
from tests.faults.schedule_checker import ScheduleBroken
from tests.faults.separate_nats import NATS_DEFAULT_FLUSH, SeparateNats, separate_nats
from tests.faults.traffic import Traffic, advance_all, end_all, running_all
from tests.platform import Cast, Platform, running

CUTS = 5
QUEUE_CUTS = TRAFFIC_CUTS = 3
SIZE_MIB = 128
ROWS = 6
COMMITS = 300


@pytest.fixture
def disk(require: Require, tmp_path: Path) -> Iterator[Disk]:
    """Return a disk that holds the data folder of `running(tmp_path)`."""
    require(disks.NEEDS, disks.is_possible())
    with disks.mounted(tmp_path, tmp_path / "data", SIZE_MIB) as disk:
        yield disk


@dataclass
class Rows:
    """Rows that people create during the power cut, as far as they were answered."""

    agents: set[str] = field(default_factory=set)
    channels: set[str] = field(default_factory=set)
    subscriptions: set[tuple[str, str]] = field(default_factory=set)
    messages: dict[tuple[str, str], Receipt] = field(default_factory=dict)
    """The first message of a new tenant, by the tenant and its channel."""
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def make(self, cast: Cast) -> None:
        """Create one after the other until there is no answer."""
        async with cast.rest() as rest:
            try:
                while True:
                    await self._make_some(rest, cast.tenant)
            except OurFault:
                return

    async def _make_some(self, rest: Client, tenant: str) -> None:
        public = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        agent = (await rest.tenant(tenant).agents.create("made late", public.decode())).id
        self.agents.add(agent)
        channel = (await rest.tenant(tenant).channels.create("made late")).id
        self.channels.add(channel)
        await rest.tenant(tenant).subscriptions.create(channel, agent)
        self.subscriptions.add((channel, agent))
        other = (await rest.create_tenant("made late")).id
        of_other = (await rest.tenant(other).channels.create("made late")).id
        self.messages[other, of_other] = await rest.tenant(other).messages.publish(of_other, "first", key="first")
        if len(self.agents) >= ROWS:
            self.enough.set()

    async def check(self, cast: Cast) -> None:
        """Check that all of them still exist."""
        async with cast.rest() as rest:
            assert self.agents <= {row.id async for row in rest.tenant(cast.tenant).agents.list()}
            assert self.channels <= {row.id async for row in rest.tenant(cast.tenant).channels.list()}
            for channel, agent in self.subscriptions:
                assert agent in {row.agent_id async for row in rest.tenant(cast.tenant).subscriptions.list(channel)}
            for (tenant, channel), first in self.messages.items():
                again = await rest.tenant(tenant).messages.publish(channel, "first", key="first")
                assert again == Receipt(first.seq, first.message_id, duplicate=True)


async def cut_power(platform: Platform, disk: Disk, nats: SeparateNats | None = None) -> None:
    """Cut the power during publishes, and restart on the data that the disk has. `nats`: the NATS server, if it is not the
    platform's own."""
    assert platform.process is not None
    with frozen(platform.process.pid, platform.nats_pid if nats is None else nats.pid) as users:
        await asyncio.to_thread(disk.copy)
        users.kill()
    platform.process.wait(10)
    if nats is not None:
        nats.ended()
    await asyncio.to_thread(disk.restore)
    if nats is not None:
        nats.start()
    await asyncio.to_thread(platform.start)


async def cut_power_in_mid_publish(load: Load, platform: Platform, disk: Disk) -> None:
    rows = Rows()
    async with asyncio.TaskGroup() as group:
        making = group.create_task(rows.make(load.cast))
        async with asyncio.timeout(30):
            await rows.enough.wait()
        await load.note_cursors()
        await load.mid_publish()
        await cut_power(platform, disk)
        making.cancel()
    await rows.check(load.cast)


@pytest.mark.promise("1a", "11c")
async def test_power_cut_loses_nothing_acknowledged(disk: Disk, tmp_path: Path, report: Report) -> None:
    with running(tmp_path, ["--cursor-write-s", "0.3"]) as platform:
        async with running_on(platform) as load:
            await load.acknowledged(300)
            await cut_power_in_mid_publish(load, platform, disk)
            await load.acknowledged(300)
            verdict = judge(await load.end())
    report("power cut", verdict)
    assert not verdict.findings, str(verdict)


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.promise("1a", "11c")
async def test_power_cuts_at_any_moment_lose_nothing_acknowledged(disk: Disk, tmp_path: Path, report: Report) -> None:
    chance = random.Random(SEED)
    with running(tmp_path, ["--cursor-write-s", "0.3"]) as platform:
        async with running_on(platform) as load:
            for _ in range(CUTS):
                await load.acknowledged(1 + chance.choice((0, 100, 1000)))
                await cut_power(platform, disk)
            await load.acknowledged(300)
            verdict = judge(await load.end())
    report(f"{CUTS} × power cut", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"


async def test_same_power_cut_loses_acknowledged_messages_at_the_default_flush_interval_of_nats(
    disk: Disk, tmp_path: Path, report: Report
) -> None:
    """The control: if this passed without losses, the tests above could not fail."""
    with separate_nats(tmp_path / "data", NATS_DEFAULT_FLUSH) as nats, running(tmp_path, ["--nats-urls", nats.url]) as platform:
        async with running_on(platform) as load:
            await load.acknowledged(300)
            await load.mid_publish()
            await cut_power(platform, disk, nats)
            verdict = judge(await load.end_of_publishing())
    report("control: power cut, NATS's default flush", verdict)
    assert verdict.counts[Broken.LOST] > 0, str(verdict)


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.promise("9a", "9b", "11c")
async def test_power_cuts_lose_no_task_and_give_none_two_holders(disk: Disk, tmp_path: Path, queue_report: QueueReport) -> None:
    with running(tmp_path) as platform:
        async with working_on(platform, SEED) as load:
            for _ in range(QUEUE_CUTS):
                await load.done(50)
                await cut_power(platform, disk)
            await load.done(50)
            verdict = judge_queue(await load.end(is_faulted=True))
    queue_report(f"{QUEUE_CUTS} × power cut", verdict)
    assert not verdict.findings, f"ARTCAFE_TEST_SEED={SEED}: {verdict}"


@pytest.mark.faults
@pytest.mark.timeout(400)
async def test_same_power_cut_loses_tasks_at_the_default_flush_interval_of_nats(disk: Disk, tmp_path: Path) -> None:
    """The control of the test above: the queue lacks tasks, or has others under their sequences."""
    with separate_nats(tmp_path / "data", NATS_DEFAULT_FLUSH) as nats, running(tmp_path, ["--nats-urls", nats.url]) as platform:
        async with working_on(platform, SEED) as load:
            await load.done(50)
            stored = {event.seq: {"n": event.number} for event in load.events if isinstance(event, Put)}
            await cut_power(platform, disk, nats)
            async with load.cast.rest() as rest:
                kept = {each.seq: each.data async for each in rest.tenant(load.cast.tenant).messages.list(load.queue.id, after=0)}
    assert any(kept.get(seq) != task for seq, task in stored.items())


async def cut_power_under(all_of: Sequence[Traffic], platform: Platform, disk: Disk, nats: SeparateNats | None = None) -> float:
    """Cut the power. Return the seconds until the platform ran again."""
    began = note_kill(all_of)
    await cut_power(platform, disk, nats)
    return time.monotonic() - began


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.promise(
    "q1", "q3", "q4", "q12", "q13", "p6", "p8", "p17", "p18", "c4", "c9", "c10", "e2", "e3", "s3", "s4", "s5", "p10", "11c"
)
async def test_power_cuts_keep_the_promises_of_requests_pulls_receipts_and_scheduled_messages(
    disk: Disk, tmp_path: Path, ruling_report: RulingReport
) -> None:
    away_s: list[float] = []
    with running(tmp_path, ["--cursor-write-s", "0.3"]) as platform:
        async with running_all(platform, KINDS, SEED) as all_of:
            for _ in range(TRAFFIC_CUTS):
                await advance_all(all_of, FEW)
                away_s.append(await cut_power_under(all_of, platform, disk))
            await advance_all(all_of, FEW)
            rulings = await end_all(all_of, is_faulted=True, stopped_s=max(away_s))
    ruling_report(f"{TRAFFIC_CUTS} × power cut", rulings)
    check(rulings, SEED)


@pytest.mark.faults
@pytest.mark.timeout(400)
async def test_same_power_cut_breaks_promises_at_the_default_flush_interval_of_nats(
    disk: Disk, tmp_path: Path, ruling_report: RulingReport
) -> None:
    """The control of the test above: scheduled messages that were accepted are lost, and pulled ones are not in the log."""
    with separate_nats(tmp_path / "data", NATS_DEFAULT_FLUSH) as nats, running(tmp_path, ["--nats-urls", nats.url]) as platform:
        async with running_all(platform, KINDS, SEED) as all_of:
            await advance_all(all_of, 4 * FEW)
            away_s = await cut_power_under(all_of, platform, disk, nats)
            await advance_all(all_of, FEW)
            rulings = await end_all(all_of, is_faulted=True, stopped_s=away_s)
    ruling_report("control: power cut, NATS's default flush", rulings)
    assert rulings["scheduled messages"].counts[ScheduleBroken.NEVER] > 0
    assert rulings["pulls"].counts[PullBroken.CHANGED] > 0


def test_power_cut_loses_only_commits_that_sqlite_did_not_flush(disk: Disk, tmp_path: Path) -> None:
    """The control for the tables: the same file, opened once like the table engine, and once with the flush setting that it
    refuses."""
    files = {"FULL": tmp_path / "data" / "full", "NORMAL": tmp_path / "data" / "normal"}
    for file in files.values():
        with closing(sqlite_file.connect(file)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE numbers (n INTEGER)")
    databases = {name: sqlite_file.connect(file) for name, file in files.items()}
    databases["NORMAL"].execute("PRAGMA synchronous = NORMAL")
    for n in range(COMMITS):
        for name in ("FULL", "NORMAL"):
            databases[name].execute("INSERT INTO numbers VALUES (?)", (n,))
    disk.copy()
    for db in databases.values():
        db.close()
    disk.restore()
    kept = {}
    for name, file in files.items():
        with closing(sqlite_file.connect(file)) as db:
            (kept[name],) = db.execute("SELECT count(*) FROM numbers").fetchone()
    assert kept["FULL"] == COMMITS
    assert kept["NORMAL"] < COMMITS
