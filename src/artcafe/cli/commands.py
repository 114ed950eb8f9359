"""The `artcafe` command and the table of its subcommands."""

from __future__ import annotations

from typing import Final

import click

from artcafe.cli.terminal.lazy_group import MCP, SERVER, LazyCommand, LazyGroup

COMMANDS: Final = {
    "up": LazyCommand("artcafe.cli.operate.serve", "up", "Run everything on this machine until Ctrl-C.", extra=SERVER),
    "demo": LazyCommand(
        "artcafe.cli.operate.serve", "demo", "Show agents at work on a running server, step by step.", extra=SERVER
    ),
    "serve": LazyCommand("artcafe.cli.operate.serve", "serve_one", "Run one server of a fleet until SIGTERM.", extra=SERVER),
    "nats": LazyCommand("artcafe.cli.operate.nats", "nats", "Configure and check the NATS servers of a fleet.", extra=SERVER),
    "token": LazyCommand(
        "artcafe.cli.operate.token", "token", "Print an access token for a user of the local identity.", extra=SERVER
    ),
    "backup": LazyCommand(
        "artcafe.cli.operate.backup", "backup", "Save a data folder to FILE: messages, tables and secret.", extra=SERVER
    ),
    "restore": LazyCommand(
        "artcafe.cli.operate.backup", "restore", "Create a data folder from a backup, for 'artcafe up'.", extra=SERVER
    ),
    "tables": LazyCommand(
        "artcafe.cli.tables.group",
        "tables",
        "Create, check, copy and price the tables, which hold everything except messages.",
        extra=SERVER,
    ),
    "plans": LazyCommand("artcafe.cli.operate.plans", "plans", "Show and check the plans of tenants.", extra=SERVER),
    "suspend": LazyCommand("artcafe.cli.operate.suspension", "suspend", "Suspend a tenant.", extra=SERVER),
    "resume": LazyCommand("artcafe.cli.operate.suspension", "resume", "Resume a suspended tenant.", extra=SERVER),
    "platform": LazyCommand(
        "artcafe.cli.manage.platform", "platform", "Read the state and the audit of the platform, as its operator."
    ),
    "console": LazyCommand("artcafe.cli.manage.console", "console", "Open the web console in a browser, and print its address."),
    "me": LazyCommand("artcafe.cli.manage.me", "me", "Show the current user."),
    "tenant": LazyCommand(
        "artcafe.cli.manage.tenants", "tenant", "Manage your tenants: organisations that never see each other."
    ),
    "limits": LazyCommand("artcafe.cli.manage.limits", "limits", "Show the limits of a tenant, and what is used of them."),
    "member": LazyCommand("artcafe.cli.manage.members", "member", "Manage the members of a tenant."),
    "invitation": LazyCommand("artcafe.cli.manage.members", "invitation", "Manage and accept invitations into a tenant."),
    "terms": LazyCommand("artcafe.cli.manage.members", "terms", "Show and accept the terms of the service."),
    "agent": LazyCommand("artcafe.cli.manage.agents", "agent", "Manage the agents of a tenant, or connect as one of them."),
    "mcp": LazyCommand(
        "artcafe.cli.manage.mcp_server", "mcp", "Serve an agent's tools to an MCP client on standard input and output.", extra=MCP
    ),
    "channel": LazyCommand(
        "artcafe.cli.manage.channels", "channel", "Manage the channels of a tenant: ordered logs of messages."
    ),
    "chain": LazyCommand("artcafe.cli.manage.chains", "chain", "Manage chains of messages that answer each other."),
    "audit": LazyCommand("artcafe.cli.manage.audit", "audit", "Read the audit of a tenant, as one of its admins."),
    "usage": LazyCommand("artcafe.cli.manage.usage", "usage", "Read what a tenant used, as one of its admins."),
    "subscription": LazyCommand(
        "artcafe.cli.manage.subscriptions", "subscription", "Manage subscriptions: which agent receives which channel."
    ),
}


@click.group(
    cls=LazyGroup, lazy_commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="artcafe", prog_name="artcafe")
def artcafe() -> None:
    """Carry messages between fleets of AI agents, for many organisations that never see each other.

    \b
    Run everything on this machine:   artcafe up
    See agents at work on it:         artcafe demo
    Look at it in a browser:          artcafe console
    Manage a tenant over REST:        artcafe tenant create --help
    Connect as an agent:              artcafe agent listen --help
    """
