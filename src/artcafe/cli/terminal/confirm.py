"""Confirmation prompts before a command changes or deletes something."""

from __future__ import annotations

import sys

import click

from artcafe.cli.terminal.exit_codes import DECLINED
from artcafe.cli.terminal.output import escape


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation unless `yes` is set, and exit with `DECLINED` on "no".

    Raises click.UsageError when standard input is not a terminal.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"this would {question[0].lower()}{question[1:]}, and standard input is not a terminal: confirm with --yes"
        )
    if not click.confirm(f"{escape(question)}?", err=True):
        click.echo("artcafe: nothing was changed", err=True)
        click.get_current_context().exit(DECLINED)
