"""`artcafe channel redrive`: send dead letters back to their queues."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import click

from artcafe.cli.manage.command_context import CommandContext, in_tenant
from artcafe.cli.terminal.exit_codes import FAILED, ArtcafeCommand
from artcafe.cli.terminal.output import as_json, counted, escape
from artcafe.sdk.dead_letter_calls import RedrivenLetter

TEXTS: Final = {
    "redriven": "sent back to",
    "redriven_before": "was sent back before to",
    "queue_deleted": "stays: its queue was deleted:",
    "done": "is done in",
    "failed": "failed again in",
}


@click.command(cls=ArtcafeCommand)
@click.argument("channel")
@click.option("--seq", type=click.IntRange(min=1), metavar="N", help="Only the dead letter at this sequence.")
@click.option("--all", "is_all", is_flag=True, help="Every dead letter that was not sent back yet, oldest first.")
@click.option(
    "--until-failure",
    is_flag=True,
    help="With --all: wait for each message to be acknowledged before the next one, and end when one is dead-lettered again.",
)
@in_tenant
async def redrive(context: CommandContext, channel: str, seq: int | None, is_all: bool, until_failure: bool) -> None:
    """Send dead letters of CHANNEL, a queue or a dead-letter channel, back to their queues.

    Each letter is sent back once, however often the command is repeated, and stays in the dead-letter channel. The exit code is 6
    if a message failed again. To read the letters: artcafe channel history DEAD_LETTER_CHANNEL

    \b
    Examples:
      artcafe channel redrive orders --seq 58
      artcafe channel redrive orders --all
      artcafe channel redrive orders --all --until-failure
    """
    if (seq is None) is not is_all:
        raise click.UsageError("give either --seq N or --all")
    if until_failure and not is_all:
        raise click.UsageError("--until-failure needs --all")
    handled: list[RedrivenLetter] = []
    async for letter in _letters(context, channel, seq, until_failure=until_failure):
        handled.append(letter)
        if not context.as_json:
            click.echo(_line(letter))
    if context.as_json:
        click.echo(as_json(handled).encode())
    elif not handled:
        context.note("no dead letters to send back")
    else:
        context.note(f"{counted(len(handled), 'dead letter')}")
    if handled and handled[-1].status == "failed":
        click.get_current_context().exit(FAILED)


async def _letters(
    context: CommandContext, channel: str, seq: int | None, *, until_failure: bool
) -> AsyncIterator[RedrivenLetter]:
    if seq is not None:
        yield await context.scope.dead_letters.redrive(channel, seq)
        return
    async for letter in context.scope.dead_letters.redrive_all(channel, until_failure=until_failure):
        yield letter


def _line(letter: RedrivenLetter) -> str:
    at = "" if letter.redriven_seq is None else f" #{letter.redriven_seq}"
    return escape(f"#{letter.seq} {TEXTS.get(letter.status, letter.status)} {letter.channel}{at}")
