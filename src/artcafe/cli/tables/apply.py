"""`artcafe tables plan` and `artcafe tables apply`: show the missing tables, and create them."""

from __future__ import annotations

from collections.abc import Callable

import click

from artcafe.cli.installation.location import Installation, with_installation
from artcafe.cli.tables.status import PlannedChange, open_schema, planned_changes
from artcafe.cli.terminal.confirm import confirm
from artcafe.cli.terminal.exit_codes import DIFFERENT, ArtcafeCommand
from artcafe.cli.terminal.output import counted, show_table, yes_option
from artcafe.tables.catalog import TABLES
from artcafe.tables.sqlite import file as sqlite_file


@click.command(cls=ArtcafeCommand)
@with_installation
async def plan(installation: Installation) -> int:
    """Show the changes of 'apply' without making them. Exit code 5 means that changes are needed.

    \b
    Example:
      artcafe tables plan --tables dynamodb:eu-central-1
    """
    found = await planned_changes(installation)
    if not found:
        installation.note(f"nothing to do: every table exists in {installation}")
    if found or installation.as_json:
        _show(installation, found)
    return DIFFERENT if found else 0


@click.command(cls=ArtcafeCommand)
@yes_option
@with_installation
async def apply(installation: Installation, yes: bool) -> int:
    """Create the missing tables, and enable time to live for challenges. Existing tables are not changed otherwise.

    \b
    Examples:
      artcafe tables apply --tables dynamodb:eu-central-1
      artcafe tables apply --tables dynamodb:eu-central-1 --yes --json
    """
    found = await planned_changes(installation)
    if not found:
        installation.note(f"nothing to do: every table exists in {installation}")
    else:
        if not installation.as_json:
            _show(installation, found)
        confirm(f"Change {counted(len(found), 'table')} in {installation}", yes=yes)
        await _apply(installation, found)
    if installation.as_json:
        _show(installation, found)
    return 0


def _show(installation: Installation, found: list[PlannedChange]) -> None:
    show_table(installation, found, ["TABLE", "ACTION", "HOW"], [[each.table, each.action, each.says] for each in found])


async def _apply(installation: Installation, found: list[PlannedChange]) -> None:
    if not installation.is_dynamodb:
        sqlite_file.prepare(installation.settings.tables_file, installation.environment)
        installation.note(f"created {installation}")
        return
    by_name = {installation.name(table): table for table in TABLES}
    async with open_schema(installation) as schema:
        await schema.create([by_name[each.table] for each in found if each.action == "create"], _created_note(installation))
        for each in found:
            if each.action == "expire" and await schema.enable_ttl(by_name[each.table]):
                installation.note(f"enabled time to live on {each.table}")


def _created_note(installation: Installation) -> Callable[[str], None]:
    return lambda name: installation.note(f"created {name}")
