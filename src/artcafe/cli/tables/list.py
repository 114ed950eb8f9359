"""`artcafe tables list`: what is there."""

from __future__ import annotations

import click

from artcafe.cli.installation.location import Place, at_place
from artcafe.cli.tables.status import look
from artcafe.cli.terminal.exit_codes import Failing
from artcafe.cli.terminal.output import show_table, size_text


@click.command("list", cls=Failing)
@at_place
async def list_tables(place: Place) -> int:
    """Lists the tables, what stands of each, and how much is in it (on DynamoDB as it was counted some hours ago).

    \b
    Examples:
      artcafe tables list --data-dir ./artcafe-data
      artcafe tables list --tables dynamodb:eu-central-1
    """
    found = await look(place)
    rows = [[each.name, " + ".join(each.key), each.state, each.rows, size_text(each.size_bytes), each.ttl] for each in found]
    show_table(place, found, ["TABLE", "KEY", "STATE", "ROWS", "SIZE", "TTL"], rows)
    return 0
