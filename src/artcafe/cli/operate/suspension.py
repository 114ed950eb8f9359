"""`artcafe suspend` and `artcafe resume`: an operator's word on a tenant, in its row, told to every server and in the audits."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import click

from artcafe.cli.installation.location import Installation, with_installation
from artcafe.cli.operate.operator_context import OperatorContext, connect
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import as_json, escape
from artcafe.errors import OurFault, TablesRefused
from artcafe.model import TenantId, TenantStatus
from artcafe.observe.clock import now
from artcafe.services.audit import OPERATOR
from artcafe.tables.engine.port import ConditionFailed


@click.command(cls=ArtcafeCommand)
@click.argument("tenant")
@with_installation
async def suspend(installation: Installation, tenant: str) -> int:
    """Suspends a tenant. Its agents are out on every server at once, and its people read and change nothing.

    For whoever runs the service: it works on the tables, tells the servers over NATS, and stands in the tenant's audit and the
    platform's. A fleet's NATS and secret are named by ARTCAFE_NATS_URLS and ARTCAFE_SECRET_FILE.

    \b
    Example:
      artcafe suspend ten_… --data-dir ./artcafe-data
    """
    await _set(installation, tenant, TenantStatus.SUSPENDED)
    return 0


@click.command(cls=ArtcafeCommand)
@click.argument("tenant")
@with_installation
async def resume(installation: Installation, tenant: str) -> int:
    """Lets a suspended tenant go on. Its agents come back when they connect the next time.

    \b
    Example:
      artcafe resume ten_… --data-dir ./artcafe-data
    """
    await _set(installation, tenant, TenantStatus.ACTIVE)
    return 0


async def _set(installation: Installation, tenant_id: str, status: TenantStatus) -> None:
    if not tenant_id or len(tenant_id.encode("utf-8", "surrogatepass")) > 1024:
        raise click.UsageError("a tenant is named by its id, such as ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2")
    async with connect(installation) as context:
        tenant = context.store.tenant(TenantId(tenant_id))
        if await tenant.tenant() is None:
            raise _none_there(installation, tenant_id)
        async with _told(context, tenant.id, "tenant.suspend" if status is TenantStatus.SUSPENDED else "tenant.resume"):
            try:
                await tenant.transact([tenant.set_status(status, now())])
            except ConditionFailed as exc:
                raise _none_there(installation, tenant_id) from exc
        with contextlib.suppress(OurFault):  # It is done, and every server reads it within 5 s.
            await context.announcements.announce_now(tenant.id)
        row = await tenant.tenant()
    name = "" if row is None else f" ({row.name})"
    done = "is suspended" if status is TenantStatus.SUSPENDED else "is active"
    if installation.as_json:
        click.echo(as_json({"id": tenant_id, "status": status.value}))
    else:
        click.echo(escape(f"Tenant {tenant_id}{name} {done}, and every server was told."))


@contextlib.asynccontextmanager
async def _told(context: OperatorContext, tenant_id: TenantId, action: str) -> AsyncIterator[None]:
    """In the tenant's audit and the platform's, before and after. Raises `Unavailable`, and then nothing is to be changed."""
    async with (
        context.audit.change(tenant_id, OPERATOR, action, tenant_id),
        context.audit.change(None, OPERATOR, action, tenant_id),
    ):
        yield


def _none_there(installation: Installation, tenant_id: str) -> TablesRefused:
    return TablesRefused(f"there is no tenant {tenant_id!r} in {installation}", "'artcafe tables list' says what is there")
