"""`artcafe plans …`: show the catalogue of plans, and check a file of plans."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from artcafe import plan_catalogue
from artcafe.cli.installation.location import Installation, with_installation
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import as_json, counted, escape, show_table
from artcafe.errors import PlansInvalid
from artcafe.resources import capacity_of
from artcafe.rules.plan_check import oversold
from artcafe.rules.plan_file import UNLIMITED_WORD
from artcafe.rules.plans import UNLIMITED, Limit, Plans


class PlanEntry(msgspec.Struct, frozen=True):
    """A plan, as `artcafe plans list --json` prints it. A limit of null is unlimited."""

    name: str
    title: str
    description: str
    self_serve: bool
    is_default: bool
    limits: dict[str, int | None]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def plans() -> None:
    """Show and check the plans of tenants.

    A plan has a number for each limit of a tenant. A TOML file named by ARTCAFE_PLANS_FILE replaces the shipped plans.
    """


@plans.command("list", cls=ArtcafeCommand)
@with_installation
async def list_plans(installation: Installation) -> int:
    """Print the limits of each plan.

    \b
    Examples:
      artcafe plans list
      ARTCAFE_PLANS_FILE=plans.toml artcafe plans list --json
    """
    catalogue = installation.plans()
    entries = _entries(catalogue)
    rows = [[limit.value, *[_number(each.limits[limit]) for each in catalogue]] for limit in Limit]
    rows.append(["self_serve", *["yes" if each.self_serve else "no" for each in entries]])
    installation.note(f"new tenants get the plan {catalogue.default}")
    show_table(installation, entries, ["LIMIT", *[each.name for each in entries]], rows)
    return 0


@plans.command(cls=ArtcafeCommand)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@with_installation
async def check(installation: Installation, file: Path | None) -> int:
    """Check a file of plans, by default the one that a server would use: each number, and that no plan sells more than this
    installation can keep.

    \b
    Example:
      artcafe plans check plans.toml
    """
    file = file or installation.settings.plans_file
    catalogue = plan_catalogue.read(file)
    name = "the shipped plans" if file is None else str(file)
    if faults := oversold(catalogue, capacity_of(installation.settings)):
        raise PlansInvalid(name if file is None else f"the file of plans {file}", faults)
    if installation.as_json:
        click.echo(as_json({"file": None if file is None else str(file), "plans": [each.name for each in catalogue]}))
    else:
        click.echo(escape(f"{name}: {counted(len(catalogue.plans), 'plan')}, no faults."))
    return 0


def _entries(catalogue: Plans) -> list[PlanEntry]:
    return [
        PlanEntry(
            each.name,
            each.title,
            each.description,
            each.self_serve,
            each.name == catalogue.default,
            {limit.value: None if number >= UNLIMITED else number for limit, number in each.limits.items()},
        )
        for each in catalogue
    ]


def _number(number: int) -> str:
    return UNLIMITED_WORD if number >= UNLIMITED else f"{number:,}"
