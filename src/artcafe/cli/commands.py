"""The `artcafe` command and the table of its commands."""

from __future__ import annotations

from typing import Final

import click

from artcafe.cli.terminal.lazy_group import LazyCommand, LazyGroup

COMMANDS: Final = {
    "up": LazyCommand("artcafe.cli.operate.serve", "up", "Runs everything on this machine until Ctrl-C.", needs_server=True),
    "demo": LazyCommand(
        "artcafe.cli.operate.serve", "demo", "Plays the main job on a running server, step by step.", needs_server=True
    ),
    "serve": LazyCommand(
        "artcafe.cli.operate.serve", "serve_one", "Runs one server of a fleet until SIGTERM.", needs_server=True
    ),
    "nats": LazyCommand("artcafe.cli.operate.nats", "nats", "The NATS servers of a fleet.", needs_server=True),
    "token": LazyCommand("artcafe.cli.operate.token", "token", "Prints an access token for a person.", needs_server=True),
    "backup": LazyCommand(
        "artcafe.cli.operate.backup", "backup", "Saves a data folder to FILE: messages, tables and secret.", needs_server=True
    ),
    "restore": LazyCommand(
        "artcafe.cli.operate.backup", "restore", "Makes a new data folder of a backup, for 'artcafe up'.", needs_server=True
    ),
    "tables": LazyCommand(
        "artcafe.cli.tables.group", "tables", "The tables that hold everything but messages.", needs_server=True
    ),
    "suspend": LazyCommand("artcafe.cli.operate.suspension", "suspend", "Suspends a tenant.", needs_server=True),
    "resume": LazyCommand("artcafe.cli.operate.suspension", "resume", "Lets a suspended tenant go on.", needs_server=True),
    "platform": LazyCommand(
        "artcafe.cli.operate.platform_audit", "platform", "The platform's own records, for its operator.", needs_server=True
    ),
    "me": LazyCommand("artcafe.cli.manage.me", "me", "Shows who you are to the server."),
    "tenant": LazyCommand("artcafe.cli.manage.tenants", "tenant", "Your tenants: organisations that never see each other."),
    "member": LazyCommand("artcafe.cli.manage.members", "member", "The people of a tenant."),
    "invitation": LazyCommand("artcafe.cli.manage.members", "invitation", "Invitations into a tenant."),
    "terms": LazyCommand("artcafe.cli.manage.members", "terms", "The terms of the service."),
    "agent": LazyCommand("artcafe.cli.manage.agents", "agent", "The agents of a tenant, and speaking as one of them."),
    "channel": LazyCommand("artcafe.cli.manage.channels", "channel", "The channels of a tenant: ordered logs of messages."),
    "audit": LazyCommand("artcafe.cli.manage.audit", "audit", "The audit of a tenant, for its admins."),
    "subscription": LazyCommand(
        "artcafe.cli.manage.subscriptions", "subscription", "Subscriptions: which agent receives which channel."
    ),
}


@click.group(
    cls=LazyGroup, lazy_commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="artcafe", prog_name="artcafe")
def artcafe() -> None:
    """Carries messages between fleets of AI agents, for many organisations that never see each other.

    \b
    Everything on this machine:       artcafe up
    The main job, played on it:       artcafe demo
    As a person, over REST:           artcafe tenant create --help
    As an agent with an SSH key:      artcafe agent listen --help
    """
