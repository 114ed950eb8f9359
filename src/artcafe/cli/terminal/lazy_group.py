"""A click group that imports a command's module only when that command runs, and lists commands without importing any."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import click

from artcafe.cli.terminal.exit_codes import REFUSED
from artcafe.cli.terminal.signals import INTERRUPTED, signals_end_process

MOST_HELP: Final = 110
"""Characters of a command's summary."""


class Extra(NamedTuple):
    """Optional libraries that a command needs: `pip install 'artcafe[NAME]'` installs them. `probe` is the cheapest to import."""

    name: str
    what: str
    probe: str

    @property
    def is_installed(self) -> bool:
        """Whether the libraries are installed."""
        try:
            importlib.import_module(self.probe)
        except ModuleNotFoundError:
            return False
        return True


SERVER: Final = Extra("server", "the server", "aiobotocore")
MCP: Final = Extra("mcp", "the MCP library", "mcp_types.version")


class LazyCommand(NamedTuple):
    """A command's module and attribute, and its summary in `--help`: the first sentence of its docstring."""

    module: str
    attribute: str
    summary: str
    extra: Extra | None = None

    @property
    def missing(self) -> Extra | None:
        """The libraries that the command requires, if they are not installed."""
        return None if self.extra is None or self.extra.is_installed else self.extra

    @property
    def help_text(self) -> str:
        """Its line in the help of its group."""
        missing = self.missing
        return self.summary if missing is None else f"Requires {missing.what}, which is not installed."


class LazyGroup(click.Group):
    """A group with a table of commands, imported one at a time: importing all costs 2 s of CPU, one costs 0.1 to 0.3 s.

    It may have commands of its own module too.
    """

    def __init__(self, *args: Any, lazy_commands: Mapping[str, LazyCommand], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy_commands = lazy_commands

    # A signal while arguments are parsed or a command's module is imported; click itself would exit with 1.

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *self.lazy_commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = self.lazy_commands.get(cmd_name)
        if lazy is None:
            return super().get_command(ctx, cmd_name)
        if (missing := lazy.missing) is not None:
            return _refusing(cmd_name, missing)
        with signals_end_process():
            command: click.Command = getattr(importlib.import_module(lazy.module), lazy.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [(name, self.commands[name].get_short_help_str(limit=MOST_HELP)) for name in super().list_commands(ctx)]
        lazy = [(name, each.help_text) for name, each in self.lazy_commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl([*own, *lazy])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command as click does, and suggest the nearest name for an unknown one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not near:
                raise
            raise click.UsageError(f"{exc.message.rstrip('.')}; did you mean '{near[0]}'?", exc.ctx) from None


def _refusing(name: str, missing: Extra) -> click.Command:
    """Return a command that prints what to install and exits with `REFUSED`."""

    def refuse(_arguments: tuple[str, ...]) -> None:
        remedy = f"run pip install '.[{missing.name}]' in the source folder"
        click.echo(f"artcafe: '{name}' requires {missing.what}, which is not installed: {remedy}", err=True)
        click.get_current_context().exit(REFUSED)

    return click.Command(
        name,
        callback=refuse,
        params=[click.Argument(["_arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
    )
