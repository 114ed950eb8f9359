"""The group `artcafe tables` and its table of commands."""

from __future__ import annotations

from typing import Final

import click

from artcafe.cli.terminal.lazy_group import LazyCommand, LazyGroup

COMMANDS: Final = {
    "apply": LazyCommand("artcafe.cli.tables.apply", "apply", "Create the missing tables."),
    "check": LazyCommand("artcafe.cli.tables.check", "check", "Check the tables, and optionally check or repair their rows."),
    "copy": LazyCommand("artcafe.cli.tables.copy", "copy", "Copy one or all tenants to other tables and another NATS."),
    "cost": LazyCommand(
        "artcafe.cli.tables.cost", "cost", "Print the read and write units of each operation, and the monthly costs of a fleet."
    ),
    "export": LazyCommand("artcafe.cli.tables.export", "export", "Print a CloudFormation template or a Terraform configuration."),
    "list": LazyCommand("artcafe.cli.tables.list", "list_tables", "List the tables."),
    "plan": LazyCommand("artcafe.cli.tables.apply", "plan", "Show the changes of 'apply' without making them."),
}


@click.group(cls=LazyGroup, lazy_commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
def tables() -> None:
    """Create, check, copy and price the tables, which hold everything except messages, in a file or on DynamoDB.

    \b
    Select the tables with the same settings as for a server:
      artcafe tables list --data-dir ./artcafe-data
      ARTCAFE_TABLES=dynamodb:eu-central-1 artcafe tables plan
    """
