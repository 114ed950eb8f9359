"""The `artcafe` command and the table of its commands."""

from __future__ import annotations

from typing import Final

import click

from artcafe.cli.terminal.lazy_group import Home, LazyGroup

COMMANDS: Final = {
    "up": Home("artcafe.cli.operate.serve", "up", "Runs everything on this machine until Ctrl-C.", needs_server=True),
    "demo": Home("artcafe.cli.operate.serve", "demo", "Plays the main job on a running server, step by step.", needs_server=True),
    "serve": Home("artcafe.cli.operate.serve", "serve_one", "Runs one server of a fleet until SIGTERM.", needs_server=True),
    "nats": Home("artcafe.cli.operate.nats", "nats", "The NATS servers of a fleet.", needs_server=True),
    "token": Home("artcafe.cli.operate.token", "token", "Prints an access token for a person.", needs_server=True),
    "backup": Home(
        "artcafe.cli.operate.backup", "backup", "Saves a data folder to FILE: messages, tables and secret.", needs_server=True
    ),
    "restore": Home(
        "artcafe.cli.operate.backup", "restore", "Makes a new data folder of a backup, for 'artcafe up'.", needs_server=True
    ),
    "tables": Home("artcafe.cli.tables.group", "tables", "The tables that hold everything but messages.", needs_server=True),
    "suspend": Home("artcafe.cli.operate.suspension", "suspend", "Suspends a tenant.", needs_server=True),
    "resume": Home("artcafe.cli.operate.suspension", "resume", "Lets a suspended tenant go on.", needs_server=True),
    "platform": Home(
        "artcafe.cli.operate.platform_audit", "platform", "The platform's own records, for its operator.", needs_server=True
    ),
    "me": Home("artcafe.cli.manage.me", "me", "Shows who you are to the server."),
    "tenant": Home("artcafe.cli.manage.tenants", "tenant", "Your tenants: organisations that never see each other."),
    "member": Home("artcafe.cli.manage.members", "member", "The people of a tenant."),
    "invitation": Home("artcafe.cli.manage.members", "invitation", "Invitations into a tenant."),
    "terms": Home("artcafe.cli.manage.members", "terms", "The terms of the service."),
    "agent": Home("artcafe.cli.manage.agents", "agent", "The agents of a tenant, and speaking as one of them."),
    "channel": Home("artcafe.cli.manage.channels", "channel", "The channels of a tenant: ordered logs of messages."),
    "audit": Home("artcafe.cli.manage.audit", "audit", "The audit of a tenant, for its admins."),
    "subscription": Home(
        "artcafe.cli.manage.subscriptions", "subscription", "Subscriptions: which agent receives which channel."
    ),
}


@click.group(cls=LazyGroup, homes=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="artcafe", prog_name="artcafe")
def artcafe() -> None:
    """Carries messages between fleets of AI agents, for many organisations that never see each other.

    \b
    Everything on this machine:       artcafe up
    The main job, played on it:       artcafe demo
    As a person, over REST:           artcafe tenant create --help
    As an agent with an SSH key:      artcafe agent listen --help
    """
