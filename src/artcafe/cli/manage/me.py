"""`artcafe me`: show the current user."""

from __future__ import annotations

import click

from artcafe.cli.manage.command_context import CommandContext, as_user
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import show_one


@click.command(cls=ArtcafeCommand)
@as_user
async def me(context: CommandContext) -> None:
    """Show the current user: id, tenants with roles, and terms to accept.

    \b
    Example:
      artcafe me
    """
    show_one(context, await context.rest.me())
