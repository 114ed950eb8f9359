"""`artcafe channel history`: print the stored messages of a channel, and follow new ones."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Final

import click
import msgspec

from artcafe.cli.manage.command_context import CommandContext, in_tenant
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import as_text
from artcafe.cli.terminal.payload import one_line
from artcafe.cli.terminal.time_params import SequenceOrTimeParam
from artcafe.errors import ArtcafeError
from artcafe.sdk.messages import Gap
from artcafe.sdk.records import KeptMessage

SHOWN: Final = 20
"""Default number of messages, which fits a screen."""
POLL_S: Final = 1.0
"""Poll interval of --follow."""
REASONS: Final = {"retention": "they are older than the channel's retention"}

Position = int | datetime | None


@click.command(cls=ArtcafeCommand)
@click.argument("channel")
@click.option(
    "--after",
    type=SequenceOrTimeParam(),
    metavar="SEQ|TIME",
    help="Messages above a sequence, or from a time on (1h, '2026-11-28 10:00', RFC 3339), oldest first.",
)
@click.option("--before", type=SequenceOrTimeParam(), metavar="SEQ|TIME", help="Messages below a sequence, or before a time.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=SHOWN, show_default=True, metavar="N", help="Maximum number of messages."
)
@click.option("--follow", is_flag=True, help="Print messages oldest first, and new ones as they arrive, until Ctrl-C.")
@in_tenant
async def history(context: CommandContext, channel: str, after: Position, before: Position, limit: int, follow: bool) -> None:
    """Print the stored messages of a channel, one per line.

    The newest messages are printed first, or the oldest with --after.

    \b
    Examples:
      artcafe channel history news
      artcafe channel history news --after 1h --limit 1000 --json
      artcafe channel history news --follow
    """
    if follow and before is not None:
        raise click.UsageError("--follow and --before exclude each other")
    kept = context.scope.messages.list(channel, after=after, before=before, limit=limit, on_gap=lambda gap: _warn(context, gap))
    found = [each async for each in kept]
    if follow:
        await _follow(context, channel, found if after is not None else found[::-1], after)
    elif context.as_json:
        click.echo(f"[{','.join(_as_json(each) for each in found)}]".encode())
    else:
        _show(context, found, limit, forward=after is not None)


def _warn(context: CommandContext, gap: Gap) -> None:
    """Print a gap on standard error."""
    as_object = {"gap": {"channel": gap.channel, "from": gap.first, "to": gap.last, "reason": gap.reason}}
    why = REASONS.get(gap.reason, gap.reason)
    click.echo(
        json.dumps(as_object) if context.as_json else f"artcafe: #{gap.first} to #{gap.last} are no longer stored: {why}",
        err=True,
    )


def _show(context: CommandContext, found: list[KeptMessage], limit: int, *, forward: bool) -> None:
    for each in found:
        click.echo(_line(each))
    if not found:
        context.note("no messages are stored")
    elif len(found) == limit:
        further = f"--after {found[-1].seq}" if forward else f"--before {found[-1].seq}"
        context.note(f"limited to {limit}; continue with {further}")


async def _follow(context: CommandContext, channel: str, found: list[KeptMessage], after: Position) -> None:
    """Print messages, oldest first, and poll for more. A temporary error is printed once until a poll succeeds."""
    position, failing = after or 0, False

    def skip(gap: Gap) -> None:
        nonlocal position
        position = gap.last or position
        _warn(context, gap)

    for each in found:
        _print(context, each)
        position = each.seq
    while True:
        await asyncio.sleep(POLL_S)
        try:
            async for each in context.scope.messages.list(channel, after=position, on_gap=skip):
                _print(context, each)
                position = each.seq
            failing = False
        except ArtcafeError as exc:
            if not exc.temporary:
                raise
            if not failing:
                context.note(f"{exc}; trying again")
            failing = True


def _print(context: CommandContext, message: KeptMessage) -> None:
    click.echo(_as_json(message).encode() if context.as_json else _line(message))


def _as_json(message: KeptMessage) -> str:
    return one_line(msgspec.json.encode(message))


def _line(message: KeptMessage) -> str:
    return f"{as_text(message.time)} #{message.seq} {as_text(message.sender)}{_origin(message)}: {one_line(bytes(message.raw))}"


def _origin(message: KeptMessage) -> str:
    """Return where a dead letter or a redriven message comes from; "" for any other message."""
    letter, redriven = message.dead_letter, message.redriven
    if letter is not None:
        return f" (dead letter: {letter.reason}, deliveries {letter.deliveries}, from {as_text(letter.channel)} #{letter.seq})"
    if redriven is not None:
        return f" (redriven by {as_text(redriven.by)} from {as_text(redriven.channel)} #{redriven.seq})"
    return ""
