"""The group of the commands below `artcafe tables`."""

from __future__ import annotations

import click

from artcafe.cli.tables.apply import apply, plan
from artcafe.cli.tables.check import check
from artcafe.cli.tables.copy import copy
from artcafe.cli.tables.cost import cost
from artcafe.cli.tables.export import export
from artcafe.cli.tables.list import list_tables


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def tables() -> None:
    """The tables that ArtCafe keeps everything but messages in: in a file, or on DynamoDB.

    \b
    Which ones are meant is said as it is to a server:
      artcafe tables list --data-dir ./artcafe-data
      ARTCAFE_TABLES=dynamodb:eu-central-1 artcafe tables plan
    """


for command in (list_tables, plan, apply, check, export, copy, cost):
    tables.add_command(command)
