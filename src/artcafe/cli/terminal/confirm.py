"""The question before a command changes or deletes something."""

from __future__ import annotations

import sys

import click

from artcafe.cli.terminal.exit_codes import DECLINED
from artcafe.cli.terminal.output import escape


def confirm(question: str, *, yes: bool) -> None:
    """Asks, unless the answer was given. Ends the command where it is no; raises `click.UsageError` where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {question[0].lower()}{question[1:]}, and there is no terminal to ask at: say --yes")
    if not click.confirm(f"{escape(question)}?", err=True):
        click.echo("artcafe: nothing was changed", err=True)
        click.get_current_context().exit(DECLINED)
