"""`artcafe tables list`: list the tables with their state and size."""

from __future__ import annotations

import click

from artcafe.cli.installation.location import Installation, with_installation
from artcafe.cli.tables.status import read_status
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import show_table, size_text


@click.command("list", cls=ArtcafeCommand)
@with_installation
async def list_tables(installation: Installation) -> int:
    """List the tables with state, rows and size. DynamoDB updates its counts about every six hours.

    \b
    Examples:
      artcafe tables list --data-dir ./artcafe-data
      artcafe tables list --tables dynamodb:eu-central-1
    """
    found = await read_status(installation)
    rows = [[each.name, " + ".join(each.key), each.state, each.rows, size_text(each.size_bytes), each.ttl] for each in found]
    show_table(installation, found, ["TABLE", "KEY", "STATE", "ROWS", "SIZE", "TTL"], rows)
    return 0
