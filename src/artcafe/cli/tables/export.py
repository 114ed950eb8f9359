"""`artcafe tables export`: print the tables as a template for CloudFormation or Terraform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.errors import TablesRefused
from artcafe.tables import templates
from artcafe.tables.catalog import Environment

FORMATS: Final = {"cloudformation": templates.cloudformation, "terraform": templates.terraform}
ENVIRONMENTS: Final = {"prod": [Environment.PROD], "dev": [Environment.DEV], "both": [Environment.PROD, Environment.DEV]}


@click.command(cls=ArtcafeCommand)
@click.option("--format", "kind", type=click.Choice(list(FORMATS)), default="cloudformation", show_default=True, help="The tool.")
@click.option(
    "--environment",
    type=click.Choice(list(ENVIRONMENTS)),
    default="prod",
    show_default=True,
    help="The environment of the tables: dev has four of its own, and shares the others with prod.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to this new file.  [default: standard output]",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print what was written as a JSON object. (The template itself is always JSON.)"
)
def export(kind: str, environment: str, output: Path | None, as_json: bool) -> None:
    """Print a CloudFormation template or a Terraform configuration that creates the same tables as 'artcafe tables apply'.

    It contains keys, on-demand billing, point-in-time recovery, time to live for challenges, and tags, and keeps both tools from
    deleting a table.

    \b
    Examples:
      artcafe tables export --output artcafe-tables.json
      artcafe tables export --format terraform --environment both --output artcafe_tables.tf.json
    """
    names = list(templates.names_in(ENVIRONMENTS[environment]))
    text = json.dumps(FORMATS[kind](ENVIRONMENTS[environment]), indent=2)
    if output is None:
        click.echo(text)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except FileExistsError:
        raise TablesRefused(f"{output} exists already", "choose another name, or move it away") from None
    except OSError as exc:
        raise TablesRefused(
            f"{output} cannot be written: {exc.strerror}", "name a file in a folder with write permission"
        ) from exc
    if as_json:
        click.echo(json.dumps({"file": str(output), "format": kind, "tables": names}))
    else:
        click.echo(f"Wrote {len(names)} tables to {output} ({kind}).")
