"""`artcafe suspend` and `artcafe resume`: an operator's word on a tenant, in its row, where every server reads it."""

from __future__ import annotations

import click

from artcafe.cli.exits import Failing
from artcafe.cli.people.answers import as_json, plain
from artcafe.cli.tables.place import Place, at_place
from artcafe.errors import TablesRefused
from artcafe.model import TenantId, TenantStatus
from artcafe.observe import now
from artcafe.tables.port import ConditionFailed
from artcafe.tables.store import Store


@click.command(cls=Failing)
@click.argument("tenant")
@at_place
async def suspend(place: Place, tenant: str) -> int:
    """Suspends a tenant: within 5 seconds its agents are out on every server, and its people read and change nothing.

    \b
    Works on the tables, for whoever runs the service. Example:
      artcafe suspend ten_… --data-dir ./artcafe-data
    """
    await _set(place, tenant, TenantStatus.SUSPENDED)
    return 0


@click.command(cls=Failing)
@click.argument("tenant")
@at_place
async def resume(place: Place, tenant: str) -> int:
    """Lets a suspended tenant go on. Its agents come back when they connect the next time.

    \b
    Works on the tables, for whoever runs the service. Example:
      artcafe resume ten_… --data-dir ./artcafe-data
    """
    await _set(place, tenant, TenantStatus.ACTIVE)
    return 0


async def _set(place: Place, tenant_id: str, status: TenantStatus) -> None:
    if not tenant_id or len(tenant_id.encode("utf-8", "surrogatepass")) > 1024:
        raise click.UsageError("a tenant is named by its id, such as ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2")
    async with place.engine() as engine:
        tenant = Store(engine).tenant(TenantId(tenant_id))
        try:
            await tenant.transact([tenant.set_status(status, now())])
        except ConditionFailed as exc:
            raise TablesRefused(
                f"there is no tenant {tenant_id!r} in {place}", "'artcafe tables list' says what is there"
            ) from exc
        row = await tenant.tenant()
    name = "" if row is None else f" ({row.name})"
    done = "is suspended" if status is TenantStatus.SUSPENDED else "is active"
    if place.as_json:
        click.echo(as_json({"id": tenant_id, "status": status.value}))
    else:
        click.echo(plain(f"Tenant {tenant_id}{name} {done}; every server knows within 5 seconds."))
