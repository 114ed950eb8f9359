"""`artcafe tenant …`: manage a user's tenants."""

from __future__ import annotations

from typing import Final

import click

from artcafe.cli.manage.command_context import CommandContext, as_user, no_tenant_text, note_terms, resolve_tenant
from artcafe.cli.terminal.confirm import confirm
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.lazy_group import SERVER, LazyCommand, LazyGroup
from artcafe.cli.terminal.output import idempotency_key_option, limit_option, show_all, show_deleted, show_one, yes_option

OPERATORS: Final = {
    "plan": LazyCommand("artcafe.cli.operate.tenant_plan", "plan", "Give a tenant any plan, as the operator.", extra=SERVER),
    "limits": LazyCommand(
        "artcafe.cli.operate.tenant_plan", "limits", "Show or change a tenant's own limits, as the operator.", extra=SERVER
    ),
}


@click.group(cls=LazyGroup, lazy_commands=OPERATORS, context_settings={"help_option_names": ["-h", "--help"]})
def tenant() -> None:
    """Manage your tenants: organisations that never see each other.

    \b
    On the server's machine, next to its data folder, no token is needed:
      artcafe tenant create Acme
    Elsewhere, set an access token:
      export ARTCAFE_URL=https://… ARTCAFE_TOKEN=…
    """


@tenant.command("list", cls=ArtcafeCommand)
@limit_option
@as_user
async def list_tenants(context: CommandContext, limit: int | None) -> None:
    """List your tenants, with your role in each.

    \b
    Example:
      artcafe tenant list
    """
    columns = {
        "ID": lambda each: each.id,
        "NAME": lambda each: each.name,
        "ROLE": lambda each: each.role,
        "PLAN": lambda each: each.plan,
        "CREATED": lambda each: each.created_at,
    }
    note_terms(context, await context.rest.me())
    await show_all(context, context.rest.tenants(limit=limit), columns, none=no_tenant_text(context.credentials))


@tenant.command(cls=ArtcafeCommand)
@click.argument("name")
@idempotency_key_option
@as_user
async def create(context: CommandContext, name: str, idempotency_key: str | None) -> None:
    """Create a tenant, and become its owner.

    \b
    Example:
      artcafe tenant create "Acme Ltd"
    """
    show_one(context, await context.rest.create_tenant(name, key=idempotency_key))


@tenant.command(cls=ArtcafeCommand)
@click.argument("tenant", required=False, envvar="ARTCAFE_TENANT")
@as_user
async def show(context: CommandContext, tenant: str | None) -> None:
    """Show a tenant, by default your only one.

    \b
    Example:
      artcafe tenant show ten_…
    """
    show_one(context, await context.rest.tenant(tenant or await resolve_tenant(context)).get())


@tenant.command(cls=ArtcafeCommand)
@click.argument("tenant")
@click.argument("name")
@as_user
async def rename(context: CommandContext, tenant: str, name: str) -> None:
    """Rename a tenant; for owners and admins.

    \b
    Example:
      artcafe tenant rename ten_… "Acme Inc"
    """
    show_one(context, await context.rest.tenant(tenant).update(name=name))


@tenant.command("choose-plan", cls=ArtcafeCommand)
@click.argument("tenant")
@click.argument("plan")
@as_user
async def choose_plan(context: CommandContext, tenant: str, plan: str) -> None:
    """Move a tenant to another of the plans on offer; for owners.

    Limits below what is used refuse new things and remove none; only a shorter retention applies to stored messages too.

    \b
    Example:
      artcafe tenant choose-plan ten_… free
    """
    show_one(context, await context.rest.tenant(tenant).update(plan=plan))


@tenant.command(cls=ArtcafeCommand)
@click.argument("tenant")
@yes_option
@as_user
async def delete(context: CommandContext, tenant: str, yes: bool) -> None:
    """Delete a tenant with all its data; for owners.

    Its agents, channels, subscriptions and messages are deleted with it.

    \b
    Examples:
      artcafe tenant delete ten_…
      artcafe tenant delete ten_… --yes
    """
    found = await context.rest.tenant(tenant).get()
    confirm(f"Delete tenant {found.id} ({found.name}) with its agents, channels and messages", yes=yes)
    await context.rest.tenant(tenant).delete()
    show_deleted(context, f"tenant {found.id} ({found.name})", found.id)
