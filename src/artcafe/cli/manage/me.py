"""`artcafe me`: who the caller is to the server."""

from __future__ import annotations

import click

from artcafe.cli.manage.caller import Caller, as_user
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import show_one


@click.command(cls=ArtcafeCommand)
@as_user
async def me(caller: Caller) -> None:
    """Shows who you are to the server. Prints your id, your tenants and roles, and the terms you have not accepted yet.

    \b
    Example:
      artcafe me
    """
    show_one(caller, await caller.rest.me())
