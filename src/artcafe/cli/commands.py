"""The `artcafe` command: which commands there are. A command's module is imported when it is asked for, so that an agent's half
works without the server's libraries."""

from __future__ import annotations

import difflib
import importlib
from typing import Final

import click

from artcafe.cli.exits import REFUSED

COMMANDS: Final = {
    "up": ("artcafe.cli.operator", "up"),
    "demo": ("artcafe.cli.operator", "demo"),
    "serve": ("artcafe.cli.operator", "serve_one"),
    "nats": ("artcafe.cli.nats", "nats"),
    "token": ("artcafe.cli.operator", "token"),
    "backup": ("artcafe.cli.backup", "backup"),
    "restore": ("artcafe.cli.backup", "restore"),
    "tables": ("artcafe.cli.tables.group", "tables"),
    "suspend": ("artcafe.cli.suspension", "suspend"),
    "resume": ("artcafe.cli.suspension", "resume"),
    "platform": ("artcafe.cli.platform", "platform"),
    "me": ("artcafe.cli.people.me", "me"),
    "tenant": ("artcafe.cli.people.tenants", "tenant"),
    "member": ("artcafe.cli.people.members", "member"),
    "invitation": ("artcafe.cli.people.members", "invitation"),
    "terms": ("artcafe.cli.people.members", "terms"),
    "agent": ("artcafe.cli.people.agents", "agent"),
    "channel": ("artcafe.cli.people.channels", "channel"),
    "audit": ("artcafe.cli.people.audit", "audit"),
    "subscription": ("artcafe.cli.people.subscriptions", "subscription"),
}


class Commands(click.Group):
    """Finds commands in the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        try:
            command: click.Command = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as exc:
            if (exc.name or "").startswith("artcafe"):
                raise
            return _without_the_server(cmd_name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the command that may have been meant where there is none of this name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if not near:
                raise
            raise click.UsageError(f"{exc.message.rstrip('.')}; did you mean '{near[0]}'?", exc.ctx) from None


def _without_the_server(name: str) -> click.Command:
    """Stands in for a command whose libraries are not installed, so that the others are listed and work."""

    def refuse(_arguments: tuple[str, ...]) -> None:
        click.echo(
            f"artcafe: '{name}' needs the server, which is not installed: pip install '.[server]' in its source folder", err=True
        )
        click.get_current_context().exit(REFUSED)

    return click.Command(
        name,
        callback=refuse,
        params=[click.Argument(["_arguments"], nargs=-1, type=click.UNPROCESSED)],
        short_help="Needs the server, which is not installed.",
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
    )


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="artcafe", prog_name="artcafe")
def artcafe() -> None:
    """Carries messages between fleets of AI agents, for many organisations that never see each other.

    \b
    Everything on this machine:       artcafe up
    The main job, played on it:       artcafe demo
    As a person, over REST:           artcafe tenant create --help
    As an agent with an SSH key:      artcafe agent listen --help
    """
