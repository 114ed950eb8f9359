"""`artcafe suspend` and `artcafe resume`: change a tenant's status, announce it to every server and record it in both audits."""

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
    """Suspend a tenant. Every server disconnects its agents at once; its members can read everything except messages, and change
    nothing.

    For the operator of the service: the command changes the tenant's row, notifies the servers over NATS, and is recorded in
    the audits of the tenant and the platform. ARTCAFE_NATS_URLS and ARTCAFE_SECRET_FILE name the NATS and secret of a fleet.

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
    """Resume a suspended tenant. Its agents can connect again.

    \b
    Example:
      artcafe resume ten_… --data-dir ./artcafe-data
    """
    await _set(installation, tenant, TenantStatus.ACTIVE)
    return 0


async def _set(installation: Installation, tenant_id: str, status: TenantStatus) -> None:
    if not tenant_id or len(tenant_id.encode("utf-8", "surrogatepass")) > 1024:
        raise click.UsageError("TENANT must be a tenant's id, such as ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2")
    async with connect(installation) as context:
        tenant = context.store.tenant(TenantId(tenant_id))
        if await tenant.tenant() is None:
            raise _not_found(installation, tenant_id)
        async with _audited(context, tenant.id, "tenant.suspend" if status is TenantStatus.SUSPENDED else "tenant.resume"):
            try:
                await tenant.transact([tenant.set_status(status, now())])
            except ConditionFailed as exc:
                raise _not_found(installation, tenant_id) from exc
        with contextlib.suppress(OurFault):  # The row is written, and every server reads it within 5 s.
            await context.announcements.announce_now(tenant.id)
        row = await tenant.tenant()
    name = "" if row is None else f" ({row.name})"
    done = "is suspended" if status is TenantStatus.SUSPENDED else "is active"
    if installation.as_json:
        click.echo(as_json({"id": tenant_id, "status": status.value}))
    else:
        click.echo(escape(f"Tenant {tenant_id}{name} {done}, and every server was notified."))


@contextlib.asynccontextmanager
async def _audited(context: OperatorContext, tenant_id: TenantId, action: str) -> AsyncIterator[None]:
    """Record the change in the audits of the tenant and the platform, before and after. Raises Unavailable before any change."""
    async with (
        context.audit.change(tenant_id, OPERATOR, action, tenant_id),
        context.audit.change(None, OPERATOR, action, tenant_id),
    ):
        yield


def _not_found(installation: Installation, tenant_id: str) -> TablesRefused:
    return TablesRefused(f"there is no tenant {tenant_id!r} in {installation}", "'artcafe tables list' shows the tables there")
