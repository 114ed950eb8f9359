"""`artcafe tables copy`: tenants with their messages from one place to another, compared at the end.

A tenant's messages go first, then its rows, and its own row last: what was cut short is known by that row's absence, and goes on
when the command is repeated (decision 20).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from enum import StrEnum
from pathlib import Path
from typing import Final

import click
import msgspec

from artcafe.cli.installation.location import run_command
from artcafe.cli.tables.copy_ends import CopyEnd, load_settings, open_end
from artcafe.cli.terminal.exit_codes import DIFFERENT, ArtcafeCommand
from artcafe.cli.terminal.output import align, as_json, counted
from artcafe.cli.terminal.progress import Progress
from artcafe.errors import TablesRefused
from artcafe.fabric import snapshots, stream_copy
from artcafe.fabric.stream_copy import ForeignStream
from artcafe.fabric.tenant_log import STREAM
from artcafe.maintenance.id_mapping import IdMapping, NewIds, SameIds
from artcafe.maintenance.repair import Repair
from artcafe.maintenance.tenant_copy import COPIED, CopyChecksums, RowCopier, members_in
from artcafe.model import TenantId, UserId
from artcafe.observe.logs import configure
from artcafe.rules import subjects
from artcafe.tables import rows
from artcafe.tables.catalog import TENANTS, Table
from artcafe.tables.engine.writes import ItemKey
from artcafe.tables.store import Store

STEPS: Final = 2
"""Of each tenant: its messages, its rows."""
PLACE: Final = click.Path(path_type=Path)


class CopyState(StrEnum):
    """What became of a tenant."""

    COPIED = "copied"
    THERE = "there"
    """It was there already, the same."""
    DIFFERENT = "different"
    """It was there already, and is not the same: nothing was done."""
    DELETING = "deleting"
    """Its deletion was begun and not ended: nothing was done."""
    DELETED = "deleted"
    """It was deleted; the record of that gets no new id."""


class TenantCopy(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant, and what became of it. `later` is how many messages came here while it was copied, and are not in the copy;
    `agents` and `channels` have the new id of each, where they got new ones."""

    tenant_id: str
    copy_id: str
    state: CopyState
    messages: int = 0
    later: int = 0
    agents: dict[str, str] = {}
    channels: dict[str, str] = {}


class TableCopy(msgspec.Struct, frozen=True, kw_only=True):
    """How a table came over: the checksums of what was read here and of what stands there."""

    table: str
    rows: int
    rows_there: int
    checksum: str
    checksum_there: str
    is_equal: bool
    left_behind: int = 0
    """Rows that stay here, because they belong to no tenant that was copied. Counted when every tenant is copied."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was done."""

    tenants: list[TenantCopy]
    tables: list[TableCopy]
    messages: int
    is_equal: bool

    @property
    def is_whole(self) -> bool:
        return self.is_equal and not any(each.state is CopyState.DIFFERENT or each.later for each in self.tenants)


@click.command(cls=ArtcafeCommand)
@click.option(
    "--from",
    "source",
    type=PLACE,
    metavar="PLACE",
    help="A data folder, or a TOML file of settings; else those of a server started here.",
)
@click.option(
    "--to", "target", type=PLACE, metavar="PLACE", required=True, help="The same, for where to; a data folder may be new."
)
@click.option("--tenant", metavar="TENANT", help="This tenant only; else all.")
@click.option("--new-ids", is_flag=True, help="Gives tenant, agents and channels new ids, so that both may stand side by side.")
@click.option("--label", metavar="TEXT", default="", help="With --new-ids: another copy of the same tenant has another label.")
@click.option(
    "--ids",
    "ids_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --new-ids: writes old and new ids there, as JSON.",
)
@click.option("--json", "as_json", is_flag=True, help="Prints a JSON object.")
def copy(
    source: Path | None, target: Path, tenant: str | None, new_ids: bool, label: str, ids_file: Path | None, as_json: bool
) -> None:
    """Copies a tenant, or all, to other tables and another NATS, and compares both in the end: members, agents, channels,
    subscriptions, usage and messages. What is there already is left as it is. Cut short, it is repeated and goes on. With all
    tenants, every acceptance of the terms goes along, and the rows of no tenant that stay here are counted.

    For a move, stop the agents first: what is published meanwhile is told, and is not in the copy. Agents keep their keys and,
    unless --new-ids, their ids: they log in there as they did here and get what they had not acknowledged. A gap (reason "epoch")
    tells them that it is another log. Exit code 5 says that something is missing or different.

    \b
    Examples:
      artcafe tables copy --from ./artcafe-data --to fleet.toml
      artcafe tables copy --from fleet.toml --to ./try-data --tenant ten_… --new-ids --ids ids.json
    where fleet.toml says
      tables = "dynamodb:eu-central-1"
      nats_urls = "nats://10.0.0.5:4222"
      secret_file = "/etc/artcafe/secret"
    """
    if (label or ids_file) and not new_ids:
        raise click.UsageError("--label and --ids go with --new-ids")
    configure("error")
    work = _Copy(only=TenantId(tenant) if tenant else None, label=label if new_ids else None, as_json=as_json)
    result = run_command(work.run(source, target))
    if ids_file is not None:
        ids_file.write_bytes(msgspec.json.format(msgspec.json.encode(result.tenants)) + b"\n")
    _tell(result, as_json=as_json)
    click.get_current_context().exit(0 if result.is_whole else DIFFERENT)


class _Copy:
    """One run of the command. `label` is None where everything keeps its id."""

    def __init__(self, *, only: TenantId | None, label: str | None, as_json: bool) -> None:
        self._only, self._label, self._as_json = only, label, as_json
        self._sums = CopyChecksums()
        self._members: dict[TenantId, set[UserId]] = {}
        self._left: dict[Table, int] = {}

    async def run(self, source: Path | None, target: Path) -> Result:
        """Copies, and returns what was done."""
        async with AsyncExitStack() as stack:
            here = await stack.enter_async_context(open_end(load_settings(source, "--from"), _say, is_source=True))
            there = await stack.enter_async_context(open_end(load_settings(target, "--to"), _say, is_source=False))
            self._check(here, there)
            self._members = await members_in(here.engine, self._only)
            tenants = [self._only] if self._only is not None else sorted([each async for each in Repair(here.engine).tenants()])
            progress = Progress(len(tenants) * STEPS, is_shown=not self._as_json)
            with progress.running():
                done = [await self._tenant(here, there, tenant_id, progress) for tenant_id in tenants]
                if self._only is None:
                    copier = RowCopier(here.engine, there.engine, self._members)
                    await copier.copy_acceptances(self._sums)
                    self._left = await copier.left_behind(self._sums)
        return self._result(done)

    def _check(self, here: CopyEnd, there: CopyEnd) -> None:
        if self._label is None and here.tables_home == there.tables_home:
            raise TablesRefused(
                "both ends are the same tables"
                + ("" if here.settings.environment == there.settings.environment else ", of which both environments share some"),
                "give --new-ids to make another tenant of it there, or name another --to",
            )

    async def _tenant(self, here: CopyEnd, there: CopyEnd, tenant_id: TenantId, progress: Progress) -> TenantCopy:
        (row,) = await here.engine.get(TENANTS, [ItemKey(tenant_id)], consistent=True)
        if row is None:
            raise TablesRefused(
                f"there is no tenant {tenant_id} here", "'artcafe tables list' and 'artcafe tenant list' show what is"
            )
        mapping: IdMapping = SameIds() if self._label is None else NewIds(tenant_id, self._label)
        copy_id = mapping.tenant_id(tenant_id)
        copier = RowCopier(here.engine, there.engine, self._members)
        if rows.is_deleting(row):
            state = CopyState.DELETING
        elif rows.TOMBSTONE in row and isinstance(mapping, NewIds):
            state = CopyState.DELETED
        elif await copier.is_there(copy_id):
            state = await self._compared(here, there, tenant_id, mapping, copier)
        else:
            moved, later = await self._messages(here, there, tenant_id, mapping, progress)
            progress.step()
            await copier.copy(tenant_id, mapping, self._sums, progress.rows)
            progress.step()
            copied = TenantCopy(tenant_id=tenant_id, copy_id=copy_id, state=CopyState.COPIED, messages=moved, later=later)
            if isinstance(mapping, NewIds):
                return msgspec.structs.replace(copied, agents=mapping.agents, channels=mapping.channels)
            return copied
        progress.step(STEPS)
        return TenantCopy(tenant_id=tenant_id, copy_id=copy_id, state=state)

    async def _compared(
        self, here: CopyEnd, there: CopyEnd, tenant_id: TenantId, mapping: IdMapping, copier: RowCopier
    ) -> CopyState:
        """What a tenant is that is there already. One with new ids has its own life since, and isn't compared."""
        if isinstance(mapping, NewIds):
            return CopyState.THERE
        sums = CopyChecksums()
        await copier.compare(tenant_id, mapping, sums)
        async with here.vault.connect(tenant_id) as source, there.vault.connect(tenant_id) as target:
            counts = [
                None if log is None else log.messages
                for log in (await snapshots.current(source, STREAM), await snapshots.current(target, STREAM))
            ]
        if not sums.are_equal or counts[0] != counts[1]:
            return CopyState.DIFFERENT
        await copier.compare(tenant_id, mapping, self._sums)
        return CopyState.THERE

    # --- messages ---

    async def _messages(
        self, here: CopyEnd, there: CopyEnd, tenant_id: TenantId, mapping: IdMapping, progress: Progress
    ) -> tuple[int, int]:
        """How many messages are there now, and how many came here meanwhile."""
        if here.log_home == there.log_home and self._label is None:
            return 0, 0  # Both ends have one NATS: the messages stay where they are.
        copy_id = mapping.tenant_id(tenant_id)
        replicas = await there.vault.replica_count()
        async with here.vault.connect(tenant_id) as source, there.vault.connect(copy_id) as target:
            if isinstance(mapping, NewIds):
                channels = await Store(here.engine).tenant(tenant_id).all_channels()
                names = {subjects.stored(each.id): subjects.stored(mapping.channel(each.id)) for each in channels}
                moved, made = await stream_copy.rewrite_log(source, target, names, mapping.sender, replicas, progress.messages)
                mapping.place = made.translate
                found = [moved]
            else:
                try:
                    found = [
                        await stream_copy.copy_stream(source, target, name, replicas)
                        for name in await snapshots.stream_names(source)
                    ]
                except ForeignStream as exc:
                    raise TablesRefused(
                        f"there are messages of a tenant {tenant_id} already ({exc.stream}), and they are not a copy of these",
                        "copy to where none are, or under --new-ids",
                    ) from exc
                progress.messages(sum(each.messages for each in found))
            later = 0
            for each in found:
                now = await snapshots.current(source, each.stream)
                later += max(0, now.last_seq - each.last_seq) if now is not None else 0
        return sum(each.messages for each in found), later

    def _result(self, done: list[TenantCopy]) -> Result:
        tables = [
            TableCopy(
                table=table.name,
                rows=self._sums.here[table].rows,
                rows_there=self._sums.there[table].rows,
                checksum=self._sums.here[table].text,
                checksum_there=self._sums.there[table].text,
                is_equal=self._sums.here[table] == self._sums.there[table],
                left_behind=self._left.get(table, 0),
            )
            for table in COPIED
        ]
        return Result(
            tenants=done,
            tables=tables,
            messages=sum(each.messages for each in done),
            is_equal=self._sums.are_equal,
        )


def _say(text: str) -> None:
    click.echo(f"artcafe: {text}", err=True)


def _tell(result: Result, *, as_json: bool) -> None:
    if as_json:
        click.echo(_as_json(result))
        return
    lines = [["TABLE", "ROWS", "THERE", "CHECKSUM", ""]]
    for each in result.tables:
        said = "equal" if each.is_equal else f"DIFFERENT there: {each.checksum_there[:16]}"
        lines.append([each.table, f"{each.rows:,}", f"{each.rows_there:,}", each.checksum[:16], said])
    for line in align(lines):
        click.echo(line)
    copied, there = (sum(each.state is state for each in result.tenants) for state in (CopyState.COPIED, CopyState.THERE))
    click.echo(f"{counted(copied, 'tenant')} copied with {counted(result.messages, 'message')}; {there:,} were there already.")
    for tenant in result.tenants:
        for line in _said_of(tenant):
            _say(line)
    for each in result.tables:
        if each.left_behind:
            _say(f"{counted(each.left_behind, 'row')} of {each.table} not copied: of no tenant that was copied")
    if not result.is_equal:
        _say("not everything is equal: somebody wrote there meanwhile; look at it with 'artcafe tables check --rows'")


def _said_of(tenant: TenantCopy) -> Iterator[str]:
    if tenant.copy_id != tenant.tenant_id:
        yield f"{tenant.tenant_id} is there as {tenant.copy_id}"
    if tenant.state is CopyState.DIFFERENT:
        yield f"{tenant.tenant_id} is there already, and is not the same; delete it there first, or copy under --new-ids"
    if tenant.state is CopyState.DELETING:
        yield f"{tenant.tenant_id} is being deleted, and was left out"
    if tenant.later:
        later = counted(tenant.later, "message")
        yield f"{later} came to {tenant.tenant_id} while it was copied, and not into the copy; for a move, stop its agents first"


def _as_json(result: Result) -> bytes:
    return as_json({**msgspec.to_builtins(result), "is_whole": result.is_whole}).encode()
