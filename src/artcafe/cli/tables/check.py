"""`artcafe tables check`: whether the tables are as the catalog has them, and the rows as ArtCafe would have left them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click
import msgspec

from artcafe.cli.installation.location import Installation, with_installation
from artcafe.cli.tables.status import ABSENT, open_schema, read_status
from artcafe.cli.terminal.confirm import confirm
from artcafe.cli.terminal.exit_codes import DIFFERENT, ArtcafeCommand
from artcafe.cli.terminal.output import counted, show_table, yes_option
from artcafe.errors import TablesRefused
from artcafe.maintenance.integrity import Finding
from artcafe.maintenance.membership_repair import MembershipRepair
from artcafe.maintenance.repair import Repair
from artcafe.model import TenantId
from artcafe.tables.dynamodb.schema import Schema, differences
from artcafe.tables.engine.port import Engine

SHOWN: Final = 1000
"""Findings for a person; a program gets all."""


class TableProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Where a table is not as the catalog has it; advice is about one that ArtCafe can well work on."""

    table: str
    says: str
    remedy: str
    is_advice: bool = False
    is_fatal: bool = False
    """Its rows cannot be looked at."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `findings` is null where the rows were not looked at; the first `mended` of them are put right now.

    Mending one thing may bring another to light, which then stands among them: a count of members, behind a membership.
    """

    place: str
    problems: list[TableProblem]
    findings: list[Finding] | None = None
    mended: int = 0

    @property
    def is_sound(self) -> bool:
        return all(each.is_advice for each in self.problems) and len(self.findings or []) == self.mended


@click.command(cls=ArtcafeCommand)
@click.option("--rows", is_flag=True, help="Reads every row too, and tells what an older system left askew.")
@click.option("--repair", is_flag=True, help="As --rows, and mends it, after asking.")
@click.option("--tenant", metavar="TENANT", help="Looks at this tenant's rows only.")
@yes_option
@with_installation
async def check(installation: Installation, rows: bool, repair: bool, tenant: str | None, yes: bool) -> int:
    """Compares the tables with what they must be: keys, time to live, and tables of an older system that still stand. With --rows
    also what is in them: memberships whose two directions disagree, subscriptions' ids, agents' channels, counts, claims to keys,
    which --repair mends; and rows that cannot work, such as an agent without a key that may log in, or a subscription of an agent
    that is gone, for a person to decide about.

    It deletes no table, and changes nothing without --repair. On DynamoDB, reading every row is paid for. Exit code 5 says that
    something is not as it should be.

    \b
    Examples:
      artcafe tables check --tables dynamodb:eu-central-1
      artcafe tables check --data-dir ./artcafe-data --repair
    """
    report = Report(place=str(installation), problems=await _problems(installation))
    if rows or repair or tenant:
        if any(problem.is_fatal for problem in report.problems):
            installation.note("the rows are not looked at, because tables are missing or cannot be used")
        else:
            report = await _with_rows(installation, report, TenantId(tenant) if tenant else None, repair=repair, yes=yes)
    _tell(installation, report)
    return 0 if report.is_sound else DIFFERENT


# --- the tables ----------------------------------------------------------------------------------------------------------


async def _problems(installation: Installation) -> list[TableProblem]:
    missing = [
        TableProblem(table=each.name, says=ABSENT, remedy="artcafe tables apply", is_fatal=True)
        for each in await read_status(installation)
        if each.state == ABSENT
    ]
    if not installation.is_dynamodb:
        return missing
    async with open_schema(installation) as schema:
        return [*missing, *await _differences(schema), *await _left_over(schema)]


async def _differences(schema: Schema) -> list[TableProblem]:
    found = await schema.describe_all()
    problems = [
        TableProblem(
            table=each.table,
            says=each.problem,
            remedy=each.remedy,
            is_fatal=each.is_fatal,
        )
        for each in differences(found)
    ]
    for table, standing in found.items():
        if standing is not None and standing.is_usable and not await schema.has_recovery(table):
            says = "point-in-time recovery is off, so that nothing brings back what is deleted by mistake"
            remedy = f"aws dynamodb update-continuous-backups --table-name {standing.name}"
            remedy += " --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true"
            problems.append(TableProblem(table=standing.name, says=says, remedy=remedy, is_advice=True))
    return problems


async def _left_over(schema: Schema) -> list[TableProblem]:
    return [
        TableProblem(
            table=each.name,
            says=f"it was deleted on 24 May 2025 and still stands; in its place: {each.replaced_by}",
            remedy=f"delete it once nothing needs it: aws dynamodb delete-table --table-name {each.name}",
        )
        for each in await schema.deleted()
    ]


# --- the rows ------------------------------------------------------------------------------------------------------------


async def _with_rows(installation: Installation, report: Report, only: TenantId | None, *, repair: bool, yes: bool) -> Report:
    async with installation.engine() as engine:
        if only is not None and not await Repair(engine).is_there(only):
            raise TablesRefused(f"there is no tenant {only} in {installation}", "'artcafe tenant list' shows a person's tenants")
        work = _Rows(engine, only, await _tenants_elsewhere(installation.other_environment) if only is None else [])
        found = await work.look()
        if not repair or not any(each.is_fixable for each in found):
            return msgspec.structs.replace(report, findings=found)
        if not installation.as_json:
            _show_findings(installation, found)
        confirm(f"Mend {sum(each.is_fixable for each in found)} of them in {installation}", yes=yes)
        written = await work.fix(found)
        left = await work.look()
    mended = [each for each in written if each not in left]
    return msgspec.structs.replace(report, findings=[*mended, *left], mended=len(mended))


async def _tenants_elsewhere(installation: Installation) -> list[TenantId]:
    if any(each.state == ABSENT or each.remedy is not None for each in await read_status(installation)):
        return []
    async with installation.engine() as engine:
        return [each async for each in Repair(engine).tenants()]


class _Rows:
    """The rows of all tenants, or of one."""

    def __init__(self, engine: Engine, only: TenantId | None, elsewhere: Sequence[TenantId]) -> None:
        """`elsewhere` are the tenants of the other environment, with which some tables are shared."""
        self._repair, self._memberships = Repair(engine), MembershipRepair(engine)
        self._only, self._elsewhere = only, elsewhere

    async def look(self) -> list[Finding]:
        """Read every row, and return what is wrong."""
        memberships = [fix.finding async for fix in self._memberships.look(self._only)]
        if self._only is not None:
            return [*memberships, *await self._repair.look(self._only)]
        of_tenants = [finding async for tenant_id in self._repair.tenants() for finding in await self._repair.look(tenant_id)]
        return [*memberships, *of_tenants, *await self._repair.orphans(self._elsewhere)]

    async def fix(self, found: Sequence[Finding]) -> list[Finding]:
        """Write every mend, and return what they are about; another look shows what they have put right.

        Memberships go first, because the counts of members depend on them.
        """
        fixes = [fix async for fix in self._memberships.look(self._only) if fix.writes]
        done = [fix.finding for fix in fixes if await self._memberships.fix(fix)]
        tenants = {each.tenant_id for each in found if each.is_fixable} | {each.tenant_id for each in done}
        for tenant_id in sorted(tenants):
            done += await self._repair.fix(TenantId(tenant_id))
        return done


# --- telling -------------------------------------------------------------------------------------------------------------


def _tell(installation: Installation, report: Report) -> None:
    if installation.as_json:
        show_table(installation, report, [], [])
        return
    if report.problems:
        headings = ["TABLE", "IS", "WHAT TO DO"]
        show_table(installation, report, headings, [[each.table, each.says, each.remedy] for each in report.problems])
    if report.findings and not report.mended:
        _show_findings(installation, report.findings)
    findings, left = len(report.findings or []), len(report.findings or []) - report.mended
    if report.mended:
        installation.note(
            f"mended {report.mended:,}; {counted(left, 'finding')} left for a person" if left else f"mended {report.mended:,}"
        )
    elif findings:
        mendable = sum(each.is_fixable for each in report.findings or [])
        installation.note(f"{counted(findings, 'finding')}; 'artcafe tables check --repair' mends {mendable:,} of them")
    if report.is_sound and not report.mended:
        installation.note(f"everything in {installation} is as it should be")


def _show_findings(installation: Installation, findings: Sequence[Finding]) -> None:
    rows = [[each.what, each.tenant_id, each.table, each.key, each.message] for each in findings[:SHOWN]]
    show_table(installation, findings, ["WHAT", "TENANT", "TABLE", "ROW", "IS"], rows)
    if len(findings) > SHOWN:
        installation.note(f"{len(findings) - SHOWN:,} more; --json prints all")
