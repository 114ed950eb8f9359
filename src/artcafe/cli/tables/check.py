"""`artcafe tables check`: compare the tables with the catalog, and check and repair their rows."""

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
from artcafe.resources import scanned_tables
from artcafe.rules.plans import Plans
from artcafe.tables.dynamodb.schema import Schema, differences
from artcafe.tables.engine.port import Engine

SHOWN: Final = 1000
"""Maximum number of findings printed for people; `--json` prints all."""


class TableProblem(msgspec.Struct, frozen=True, kw_only=True):
    """A difference of a table from the catalog. Advice concerns a table that is usable as it is."""

    table: str
    says: str
    remedy: str
    is_advice: bool = False
    is_fatal: bool = False
    """Whether the table's rows cannot be read."""


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a check. `findings` is null if rows were not read; the first `repaired` findings are fixed.

    A repair may reveal another finding, which is then included: a wrong count of members, after a membership.
    """

    place: str
    problems: list[TableProblem]
    findings: list[Finding] | None = None
    repaired: int = msgspec.field(default=0, name="mended")

    @property
    def is_sound(self) -> bool:
        return all(each.is_advice for each in self.problems) and len(self.findings or []) == self.repaired


@click.command(cls=ArtcafeCommand)
@click.option("--rows", is_flag=True, help="Read every row, and report inconsistent rows.")
@click.option("--repair", is_flag=True, help="Check as with --rows, and repair rows after a confirmation.")
@click.option("--permissions", is_flag=True, help="Try the permissions of a server on DynamoDB, with the credentials in use.")
@click.option("--tenant", metavar="TENANT", help="Check only the rows of this tenant.")
@yes_option
@with_installation
async def check(installation: Installation, rows: bool, repair: bool, permissions: bool, tenant: str | None, yes: bool) -> int:
    """Check the tables, and optionally check or repair their rows.

    The check compares keys and time to live with the catalog, and reports tables of an older system that still exist. --rows
    also reports inconsistent rows: memberships with differing directions, ids of subscriptions, channels of agents, counts, and
    claims to keys, all of which --repair corrects; and rows that need a decision, such as an active agent without a key, or a
    subscription of a deleted agent.

    --permissions makes every kind of call that a server makes to each table, and names those that AWS's policies deny. It changes
    nothing: the conditions of its writes are false.

    The command deletes no table, and changes nothing without --repair. On DynamoDB, reading every row costs money. Exit code 5
    means that something needs attention.

    \b
    Examples:
      artcafe tables check --tables dynamodb:eu-central-1 --permissions
      artcafe tables check --data-dir ./artcafe-data --repair
    """
    problems = await _problems(installation)
    if permissions and not any(problem.is_fatal for problem in problems):
        problems += await _denied(installation)
    report = CheckReport(place=str(installation), problems=problems)
    if rows or repair or tenant:
        if any(problem.is_fatal for problem in report.problems):
            installation.note("rows are not checked, because tables are missing or unusable")
        else:
            report = await _with_rows(installation, report, TenantId(tenant) if tenant else None, repair=repair, yes=yes)
    _print(installation, report)
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
            is_advice=each.is_advice,
        )
        for each in differences(found)
    ]
    for table, standing in found.items():
        if standing is not None and standing.is_usable and not await schema.has_recovery(table):
            says = "point-in-time recovery is disabled, so accidental deletions cannot be undone"
            remedy = f"aws dynamodb update-continuous-backups --table-name {standing.name}"
            remedy += " --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true"
            problems.append(TableProblem(table=standing.name, says=says, remedy=remedy, is_advice=True))
    return problems


async def _denied(installation: Installation) -> list[TableProblem]:
    async with installation.engine() as engine:
        await engine.try_permissions(scanned=scanned_tables(installation.settings))
        denied = engine.denied
    remedy = "allow it in the policy of a server: docs/dynamodb.md has all of it"
    pairs = [permission.split(" on ") for permission in denied]
    return [TableProblem(table=table, says=f"the credentials in use lack {action}", remedy=remedy) for action, table in pairs]


async def _left_over(schema: Schema) -> list[TableProblem]:
    return [
        TableProblem(
            table=each.name,
            says=f"it was removed from the catalog on 24 May 2025 and still exists; replaced by: {each.replaced_by}",
            remedy=f"delete it when it is no longer needed: aws dynamodb delete-table --table-name {each.name}",
        )
        for each in await schema.deleted()
    ]


# --- the rows ------------------------------------------------------------------------------------------------------------


async def _with_rows(
    installation: Installation, report: CheckReport, only: TenantId | None, *, repair: bool, yes: bool
) -> CheckReport:
    async with installation.engine() as engine:
        if only is not None and not await Repair(engine).is_there(only):
            raise TablesRefused(f"there is no tenant {only} in {installation}", "'artcafe tenant list' shows a user's tenants")
        elsewhere = await _tenants_elsewhere(installation.other_environment) if only is None else []
        work = _Rows(engine, installation.plans(), only, elsewhere)
        found = await work.look()
        if not repair or not any(each.is_fixable for each in found):
            return msgspec.structs.replace(report, findings=found)
        if not installation.as_json:
            _show_findings(installation, found)
        confirm(f"Repair {sum(each.is_fixable for each in found)} of them in {installation}", yes=yes)
        written = await work.fix(found)
        left = await work.look()
    repaired = [each for each in written if each not in left]
    return msgspec.structs.replace(report, findings=[*repaired, *left], repaired=len(repaired))


async def _tenants_elsewhere(installation: Installation) -> list[TenantId]:
    if any(each.state == ABSENT or each.remedy is not None for each in await read_status(installation)):
        return []
    async with installation.engine() as engine:
        return [each async for each in Repair(engine).tenants()]


class _Rows:
    """Check and repair of the rows of all tenants, or of one."""

    def __init__(self, engine: Engine, plans: Plans, only: TenantId | None, elsewhere: Sequence[TenantId]) -> None:
        """Set the scope. `elsewhere` are the tenants of the other environment, which shares some tables."""
        self._plans = plans
        self._repair, self._memberships = Repair(engine), MembershipRepair(engine)
        self._only, self._elsewhere = only, elsewhere

    async def look(self) -> list[Finding]:
        """Read every row, and return the findings."""
        memberships = [fix.finding async for fix in self._memberships.inspect(self._only)]
        if self._only is not None:
            return [*memberships, *await self._repair.inspect(self._only, self._plans)]
        tenants, plans = self._repair.tenants(), self._plans
        of_tenants = [finding async for tenant_id in tenants for finding in await self._repair.inspect(tenant_id, plans)]
        return [*memberships, *of_tenants, *await self._repair.orphans(self._elsewhere)]

    async def fix(self, found: Sequence[Finding]) -> list[Finding]:
        """Write every repair, and return the findings concerned; a second check shows which of them are fixed.

        Memberships are repaired first, because the counts of members depend on them.
        """
        fixes = [fix async for fix in self._memberships.inspect(self._only) if fix.writes]
        done = [fix.finding for fix in fixes if await self._memberships.fix(fix)]
        tenants = {each.tenant_id for each in found if each.is_fixable} | {each.tenant_id for each in done}
        for tenant_id in sorted(tenants):
            done += await self._repair.fix(TenantId(tenant_id))
        return done


# --- output --------------------------------------------------------------------------------------------------------------


def _print(installation: Installation, report: CheckReport) -> None:
    if installation.as_json:
        show_table(installation, report, [], [])
        return
    if report.problems:
        headings = ["TABLE", "IS", "WHAT TO DO"]
        show_table(installation, report, headings, [[each.table, each.says, each.remedy] for each in report.problems])
    if report.findings and not report.repaired:
        _show_findings(installation, report.findings)
    findings, left = len(report.findings or []), len(report.findings or []) - report.repaired
    if report.repaired:
        installation.note(
            f"repaired {report.repaired:,}; {counted(left, 'finding')} left to decide"
            if left
            else f"repaired {report.repaired:,}"
        )
    elif findings:
        repairable = sum(each.is_fixable for each in report.findings or [])
        installation.note(f"{counted(findings, 'finding')}; 'artcafe tables check --repair' repairs {repairable:,} of them")
    if report.is_sound and not report.repaired:
        installation.note(f"no problems found in {installation}")


def _show_findings(installation: Installation, findings: Sequence[Finding]) -> None:
    rows = [[each.what, each.tenant_id, each.table, each.key, each.message] for each in findings[:SHOWN]]
    show_table(installation, findings, ["WHAT", "TENANT", "TABLE", "ROW", "IS"], rows)
    if len(findings) > SHOWN:
        installation.note(f"{len(findings) - SHOWN:,} more; --json prints all")
