"""`artcafe tables copy`: copy tenants with their messages to another installation, and compare both.

A tenant's messages are copied first, then its rows, and its own row last. Without that row a tenant counts as unfinished, and a
repeated command continues with it (decision record 20).
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
from artcafe.cli.tables.copied_messages import copy_messages, wake
from artcafe.cli.tables.copy_ends import CopyEnd, load_settings, open_end
from artcafe.cli.terminal.exit_codes import DIFFERENT, ArtcafeCommand
from artcafe.cli.terminal.output import align, as_json, counted
from artcafe.cli.terminal.progress import Progress
from artcafe.errors import TablesRefused
from artcafe.fabric import snapshots
from artcafe.fabric.tenant_log import STREAM
from artcafe.maintenance.id_mapping import IdMapping, NewIds, SameIds
from artcafe.maintenance.repair import Repair
from artcafe.maintenance.tenant_copy import COPIED, CopyChecksums, RowCopier, members_in
from artcafe.model import TenantId, UserId
from artcafe.observe.logs import configure
from artcafe.tables import rows
from artcafe.tables.catalog import TENANTS, Table
from artcafe.tables.engine.writes import ItemKey

STEPS: Final = 2
"""Steps per tenant: its messages, and its rows."""
PLACE: Final = click.Path(path_type=Path)


class CopyState(StrEnum):
    """The outcome of copying a tenant."""

    COPIED = "copied"
    THERE = "there"
    """An equal copy existed already."""
    DIFFERENT = "different"
    """A different tenant with the same id exists in the target: nothing was copied."""
    DELETING = "deleting"
    """Its deletion is unfinished: nothing was copied."""
    DELETED = "deleted"
    """It was deleted; a tombstone is not copied under a new id."""


class TenantCopy(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one tenant.

    `scheduled` counts the scheduled messages of a copy with `--new-ids`; with the same ids they are in `messages`. `later` counts
    messages published to the source during the copy, which the copy lacks. `agents` and `channels` map old ids to new ones with
    `--new-ids`.
    """

    tenant_id: str
    copy_id: str
    state: CopyState
    messages: int = 0
    scheduled: int = 0
    later: int = 0
    agents: dict[str, str] = {}
    channels: dict[str, str] = {}


class TableCopy(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one table: row counts and checksums of source and target."""

    table: str
    rows: int
    rows_there: int
    checksum: str
    checksum_there: str
    is_equal: bool
    left_behind: int = 0
    """Rows that belong to no copied tenant, and are not copied. Counted only when all tenants are copied."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the command."""

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
    help="The source: a data folder, or a TOML file of settings.  [default: the settings of a server started here]",
)
@click.option(
    "--to",
    "target",
    type=PLACE,
    metavar="PLACE",
    required=True,
    help="The target: a data folder, which may be new, or a TOML file of settings.",
)
@click.option("--tenant", metavar="TENANT", help="Copy only this tenant.  [default: all]")
@click.option("--new-ids", is_flag=True, help="Assign new ids to tenant, agents and channels, so that both copies can coexist.")
@click.option(
    "--label", metavar="TEXT", default="", help="With --new-ids: a label that distinguishes several copies of one tenant."
)
@click.option(
    "--ids",
    "ids_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --new-ids: write old and new ids to this file, as JSON.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def copy(
    source: Path | None, target: Path, tenant: str | None, new_ids: bool, label: str, ids_file: Path | None, as_json: bool
) -> None:
    """Copy one or all tenants to other tables and another NATS, and compare both at the end.

    Members, agents, channels, subscriptions, usage and messages, also scheduled ones, are copied and compared; existing data in
    the target is not changed. After an interruption, repeat the command to continue. A copy of all tenants includes all
    acceptances of the terms, and counts the rows that belong to no tenant and are not copied.

    For a move, stop the agents first: messages published during the copy are reported, but not copied. Agents keep their keys
    and, without --new-ids, their ids: they log in to the target unchanged, and receive their unacknowledged messages after a gap
    (reason "epoch"), which marks the new log. With --new-ids a queue continues at its oldest message that is not done, so later
    ones may be delivered again. Exit code 5 means that something is missing or different.

    \b
    Examples:
      artcafe tables copy --from ./artcafe-data --to fleet.toml
      artcafe tables copy --from fleet.toml --to ./try-data --tenant ten_… --new-ids --ids ids.json
    with this fleet.toml:
      tables = "dynamodb:eu-central-1"
      nats_urls = "nats://10.0.0.5:4222"
      secret_file = "/etc/artcafe/secret"
    """
    if (label or ids_file) and not new_ids:
        raise click.UsageError("--label and --ids require --new-ids")
    configure("error")
    work = _Copy(only=TenantId(tenant) if tenant else None, label=label if new_ids else None, as_json=as_json)
    result = run_command(work.run(source, target))
    if ids_file is not None:
        ids_file.write_bytes(msgspec.json.format(msgspec.json.encode(result.tenants)) + b"\n")
    _print(result, as_json=as_json)
    click.get_current_context().exit(0 if result.is_whole else DIFFERENT)


class _Copy:
    """One run of the command. `label` is None if all ids are kept."""

    def __init__(self, *, only: TenantId | None, label: str | None, as_json: bool) -> None:
        self._only, self._label, self._as_json = only, label, as_json
        self._sums = CopyChecksums()
        self._members: dict[TenantId, set[UserId]] = {}
        self._left: dict[Table, int] = {}

    async def run(self, source: Path | None, target: Path) -> Result:
        """Copy, and return the result."""
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
        if self._label is None and here.tables_identity == there.tables_identity:
            raise TablesRefused(
                "source and target are the same tables"
                + (
                    ""
                    if here.settings.environment == there.settings.environment
                    else ", some of them shared by both environments"
                ),
                "use --new-ids to create a second tenant there, or name another --to",
            )

    async def _tenant(self, here: CopyEnd, there: CopyEnd, tenant_id: TenantId, progress: Progress) -> TenantCopy:
        (row,) = await here.engine.get(TENANTS, [ItemKey(tenant_id)], consistent=True)
        if row is None:
            raise TablesRefused(f"the source has no tenant {tenant_id}", "'artcafe tenant list' shows a user's tenants")
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
            moved = await copy_messages(here, there, tenant_id, mapping, progress)
            progress.step()
            await copier.copy(tenant_id, mapping, self._sums, progress.rows)
            await wake(there, copy_id)
            progress.step()
            copied = TenantCopy(tenant_id=tenant_id, copy_id=copy_id, state=CopyState.COPIED, **moved._asdict())
            if isinstance(mapping, NewIds):
                return msgspec.structs.replace(copied, agents=mapping.agents, channels=mapping.channels)
            return copied
        if state is CopyState.THERE:
            await wake(there, copy_id)
        progress.step(STEPS)
        return TenantCopy(tenant_id=tenant_id, copy_id=copy_id, state=state)

    async def _compared(
        self, here: CopyEnd, there: CopyEnd, tenant_id: TenantId, mapping: IdMapping, copier: RowCopier
    ) -> CopyState:
        """Compare a tenant that exists in the target. A copy with new ids is independent, and is not compared."""
        if isinstance(mapping, NewIds):
            return CopyState.THERE
        sums = CopyChecksums()
        await copier.compare(tenant_id, mapping, sums)
        async with here.connector.connect(tenant_id) as source, there.connector.connect(tenant_id) as target:
            counts = [
                None if log is None else log.messages
                for log in (await snapshots.current(source, STREAM), await snapshots.current(target, STREAM))
            ]
        if not sums.are_equal or counts[0] != counts[1]:
            return CopyState.DIFFERENT
        await copier.compare(tenant_id, mapping, self._sums)
        return CopyState.THERE

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


def _print(result: Result, *, as_json: bool) -> None:
    if as_json:
        click.echo(_as_json(result))
        return
    lines = [["TABLE", "ROWS", "IN TARGET", "CHECKSUM", ""]]
    for each in result.tables:
        result_text = "equal" if each.is_equal else f"DIFFERENT in the target: {each.checksum_there[:16]}"
        lines.append([each.table, f"{each.rows:,}", f"{each.rows_there:,}", each.checksum[:16], result_text])
    for line in align(lines):
        click.echo(line)
    copied, there = (sum(each.state is state for each in result.tenants) for state in (CopyState.COPIED, CopyState.THERE))
    click.echo(f"{counted(copied, 'tenant')} copied with {counted(result.messages, 'message')}; {there:,} existed already.")
    for tenant in result.tenants:
        for line in _notes_on(tenant):
            _say(line)
    for each in result.tables:
        if each.left_behind:
            _say(f"{counted(each.left_behind, 'row')} of {each.table} not copied: they belong to no copied tenant")
    if not result.is_equal:
        _say("source and target differ: the target was written to during the copy; check it with 'artcafe tables check --rows'")


def _notes_on(tenant: TenantCopy) -> Iterator[str]:
    if tenant.copy_id != tenant.tenant_id:
        yield f"{tenant.tenant_id} was copied as {tenant.copy_id}"
    if tenant.state is CopyState.DIFFERENT:
        yield f"{tenant.tenant_id} exists in the target and differs; delete it there first, or use --new-ids"
    if tenant.state is CopyState.DELETING:
        yield f"{tenant.tenant_id} is being deleted, and was not copied"
    if tenant.scheduled:
        scheduled = counted(tenant.scheduled, "scheduled message")
        yield f"{scheduled} of {tenant.tenant_id} copied too: what is due later is delivered in both tenants"
    if tenant.later:
        later = counted(tenant.later, "message")
        yield f"{later} published to {tenant.tenant_id} during the copy are missing in it; for a move, stop its agents first"


def _as_json(result: Result) -> bytes:
    return as_json({**msgspec.to_builtins(result), "is_whole": result.is_whole}).encode()
