"""The group of the commands below `artcafe tables`."""

from __future__ import annotations

from typing import Final

import click

from artcafe.cli.terminal.lazy_group import LazyCommand, LazyGroup

COMMANDS: Final = {
    "apply": LazyCommand("artcafe.cli.tables.apply", "apply", "Makes the tables that are missing."),
    "check": LazyCommand("artcafe.cli.tables.check", "check", "Compares the tables with what they must be."),
    "copy": LazyCommand("artcafe.cli.tables.copy", "copy", "Copies a tenant, or all, to other tables and another NATS."),
    "cost": LazyCommand("artcafe.cli.tables.cost", "cost", "Prints the read and write units of each operation."),
    "export": LazyCommand(
        "artcafe.cli.tables.export", "export", "Prints a CloudFormation template or a Terraform configuration."
    ),
    "list": LazyCommand("artcafe.cli.tables.list", "list_tables", "Lists the tables."),
    "plan": LazyCommand("artcafe.cli.tables.apply", "plan", "Shows what 'apply' would do, and does nothing."),
}


@click.group(cls=LazyGroup, lazy_commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
def tables() -> None:
    """The tables that hold everything but messages. They are in a file, or on DynamoDB.

    \b
    Which ones are meant is said as it is to a server:
      artcafe tables list --data-dir ./artcafe-data
      ARTCAFE_TABLES=dynamodb:eu-central-1 artcafe tables plan
    """
