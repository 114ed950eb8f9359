"""`artcafe tenant plan` and `artcafe tenant limits`: give a tenant another plan or limits of its own, as the operator.

Both change the tenant's row, notify every server, and are recorded in the audits of the tenant and of the platform.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import click
import msgspec

from artcafe.cli.installation.location import Installation, with_installation
from artcafe.cli.operate.operator_context import OperatorContext, connect
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import as_json, escape, show_table
from artcafe.errors import OurFault, TablesRefused
from artcafe.model import Tenant, TenantId
from artcafe.observe.clock import now
from artcafe.resources import capacity_of
from artcafe.rules.plan_check import faults_of
from artcafe.rules.plan_file import UNLIMITED_WORD
from artcafe.rules.plans import UNLIMITED, Limit, Plans
from artcafe.services.audit import OPERATOR
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Assign, Change
from artcafe.tables.limit_rows import changes_of

OF_PLAN: Final = "plan"
MOST_ID_BYTES: Final = 1024
MakeChanges = Callable[[Item], Sequence[Change]]


class OwnLimits(msgspec.Struct, frozen=True):
    """A tenant's plan, its own limits, and the limits that result. A limit of null is unlimited."""

    tenant: str
    plan: str
    own: dict[str, int | None]
    limits: dict[str, int | None]


@click.command(cls=ArtcafeCommand)
@click.argument("tenant")
@click.argument("plan")
@with_installation
async def plan(installation: Installation, tenant: str, plan: str) -> int:
    """Give a tenant any plan, as the operator.

    It takes effect within 5 s on every server. Limits below what is used refuse new things and remove none; only a shorter
    retention applies to stored messages too. Own limits of the tenant stay ('artcafe tenant limits').

    \b
    Example:
      artcafe tenant plan ten_… business --data-dir ./artcafe-data
    """
    plans = installation.plans()
    if plan not in plans:
        raise click.UsageError(f"there is no plan {plan!r}; the plans are {', '.join(plans.plans)}")
    async with connect(installation) as context:
        row = await _change(installation, context, tenant, lambda _: [Assign("plan", plan)], plan=plan)
    if installation.as_json:
        click.echo(as_json({"id": tenant, "plan": plan}))
    else:
        click.echo(escape(f"Tenant {tenant} ({row.name}) has the plan {plan}, and every server was notified."))
    return 0


@click.command(cls=ArtcafeCommand)
@click.argument("tenant")
@click.argument("changes", metavar="[NAME=NUMBER]...", nargs=-1)
@with_installation
async def limits(installation: Installation, tenant: str, changes: Sequence[str]) -> int:
    """Show or change a tenant's own limits, as the operator.

    A change is NAME=NUMBER, NAME=unlimited, or NAME=plan for the plan's again. 'artcafe limits' shows a member what is used of
    each limit.

    \b
    Examples:
      artcafe tenant limits ten_… --data-dir ./artcafe-data
      artcafe tenant limits ten_… agents=500 retention_s=plan
    """
    plans, wanted = installation.plans(), dict(map(_parsed, changes))
    numbers = {limit: number for limit, number in wanted.items() if number is not None}
    if faults := list(faults_of(numbers, capacity_of(installation.settings))):
        raise click.UsageError("; ".join(faults))
    facts = {limit.value: _word(number) for limit, number in wanted.items()}
    async with connect(installation) as context:
        if wanted:
            row = await _change(installation, context, tenant, lambda item: changes_of(item, wanted), **facts)
        else:
            row = await _row(installation, context, tenant)
    _show(installation, plans, row)
    return 0


def _parsed(change: str) -> tuple[Limit, int | None]:
    """Return a limit and its number; None for the plan's."""
    name, equals, value = change.partition("=")
    if not equals or name not in list(Limit):
        raise click.UsageError(f"{change!r} is not NAME=NUMBER with one of the limits {', '.join(Limit)}")
    if value in (OF_PLAN, UNLIMITED_WORD):
        return Limit(name), None if value == OF_PLAN else UNLIMITED
    digits = value.replace("_", "")
    if not (digits.isascii() and digits.isdigit() and int(digits) < UNLIMITED):
        raise click.UsageError(f"{name}: {value!r} is neither a whole number below 2**53 nor 'unlimited' nor 'plan'")
    return Limit(name), int(digits)


def _word(number: int | None) -> str:
    if number is None:
        return OF_PLAN
    return UNLIMITED_WORD if number >= UNLIMITED else str(number)


def _show(installation: Installation, plans: Plans, row: Tenant) -> None:
    known = {limit.value: number for limit, number in plans.limits_of(row).numbers.items()}
    own = {name: number for name, number in row.limits.items() if name in known}
    document = OwnLimits(row.id, row.plan, _without_end(own), _without_end(known))
    installation.note(f"{row.id} ({row.name}) has the plan {plans.plan_of(row).name}")
    rows = [[name, _word(number), "its own" if name in own else "of the plan"] for name, number in known.items()]
    show_table(installation, document, ["LIMIT", "NUMBER", "FROM"], rows)


def _without_end(numbers: Mapping[str, int]) -> dict[str, int | None]:
    return {name: None if number >= UNLIMITED else number for name, number in numbers.items()}


# --- the change ----------------------------------------------------------------------------------------------------------


async def _change(
    installation: Installation, context: OperatorContext, tenant_id: str, changes: MakeChanges, **facts: str
) -> Tenant:
    """Commit the changes of a tenant's row, notify every server, and return the row. Raises TablesRefused."""
    await _row(installation, context, tenant_id)
    tenant = context.store.tenant(TenantId(tenant_id))
    async with (
        context.audit.change(tenant.id, OPERATOR, "tenant.change", tenant.id, **facts),
        context.audit.change(None, OPERATOR, "tenant.change", tenant.id, **facts),
    ):
        item = await tenant.item()
        try:
            await tenant.transact([tenant.change_row(changes(item or {}), item or {}, now())])
        except ConditionFailed as exc:
            raise TablesRefused(
                f"the row of tenant {tenant_id} was changed by another program at the same time, or was deleted", "try again"
            ) from exc
    row = await _row(installation, context, tenant_id)
    with contextlib.suppress(OurFault):  # The row is written, and every server reads it within 5 s.
        await context.announcements.announce_now(tenant.id)
        await context.fabric.limit_log(tenant.id, context.plans.limit_of(row, Limit.STORAGE_BYTES))
    return row


async def _row(installation: Installation, context: OperatorContext, tenant_id: str) -> Tenant:
    if not tenant_id or len(tenant_id.encode("utf-8", "surrogatepass")) > MOST_ID_BYTES:
        raise click.UsageError("TENANT must be a tenant's id, such as ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2")
    row = await context.store.tenant(TenantId(tenant_id)).tenant()
    if row is None:
        raise TablesRefused(f"there is no tenant {tenant_id!r} in {installation}", "'artcafe tables list' shows the tables there")
    return row
