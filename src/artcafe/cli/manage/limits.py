"""`artcafe limits`: show the limits of a tenant, and what is used of them."""

from __future__ import annotations

import click

from artcafe.cli.manage.command_context import CommandContext, in_tenant
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import as_text, show_table
from artcafe.sdk.records import LimitInfo

HEADINGS = ("LIMIT", "NUMBER", "USED", "LEFT", "RESETS AT")


@click.command(cls=ArtcafeCommand)
@in_tenant
async def limits(context: CommandContext) -> None:
    """Show the limits of a tenant, and what is used of them.

    An empty cell is unknown, or has no meaning for that limit.

    \b
    Examples:
      artcafe limits
      artcafe limits --json
    """
    found = await context.scope.limits()
    context.note(f"plan {found.plan}")
    show_table(context, found, HEADINGS, [_row(each) for each in found.items])


def _row(limit: LimitInfo) -> list[str]:
    number = "unlimited" if limit.limit is None else f"{limit.limit:,}"
    used, left = ("" if value is None else f"{value:,}" for value in (limit.used, limit.left))
    return [limit.name, number, used, left, as_text(limit.resets_at)]
