"""`artcafe tables plan` and `artcafe tables apply`: what would change, and changing it."""

from __future__ import annotations

from collections.abc import Callable

import click

from artcafe.cli.installation.location import Place, at_place
from artcafe.cli.tables.status import Step, schema_of, steps
from artcafe.cli.terminal.confirm import asked
from artcafe.cli.terminal.exit_codes import DIFFERENT, Failing
from artcafe.cli.terminal.output import counted, show_table, yes_option
from artcafe.tables.catalog import TABLES
from artcafe.tables.sqlite import file as sqlite_file


@click.command(cls=Failing)
@at_place
async def plan(place: Place) -> int:
    """Shows what 'apply' would do, and does nothing. Exit code 5 says that there is something to do.

    \b
    Example:
      artcafe tables plan --tables dynamodb:eu-central-1
    """
    found = await steps(place)
    if not found:
        place.note(f"nothing to do: every table stands in {place}")
    if found or place.as_json:
        _show(place, found)
    return DIFFERENT if found else 0


@click.command(cls=Failing)
@yes_option
@at_place
async def apply(place: Place, yes: bool) -> int:
    """Makes the tables that are missing, and turns on the time to live of challenges. Nothing else that stands is altered.

    \b
    Examples:
      artcafe tables apply --tables dynamodb:eu-central-1
      artcafe tables apply --tables dynamodb:eu-central-1 --yes --json
    """
    found = await steps(place)
    if not found:
        place.note(f"nothing to do: every table stands in {place}")
    else:
        if not place.as_json:
            _show(place, found)
        asked(f"Change {counted(len(found), 'table')} in {place}", yes=yes)
        await _do(place, found)
    if place.as_json:
        _show(place, found)
    return 0


def _show(place: Place, found: list[Step]) -> None:
    show_table(place, found, ["TABLE", "ACTION", "HOW"], [[each.table, each.action, each.says] for each in found])


async def _do(place: Place, found: list[Step]) -> None:
    if not place.is_dynamodb:
        sqlite_file.prepare(place.settings.tables_file, place.environment)
        place.note(f"made {place}")
        return
    by_name = {place.name(table): table for table in TABLES}
    async with schema_of(place) as schema:
        await schema.create([by_name[each.table] for each in found if each.action == "create"], _told(place))
        for each in found:
            if each.action == "expire" and await schema.expire(by_name[each.table]):
                place.note(f"turned on the time to live of {each.table}")


def _told(place: Place) -> Callable[[str], None]:
    return lambda name: place.note(f"made {name}")
