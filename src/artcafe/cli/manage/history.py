"""`artcafe channel history`: what a channel keeps, and what comes after it."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Final

import click
import msgspec

from artcafe.cli.manage.caller import Caller, in_tenant
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import as_text
from artcafe.cli.terminal.payload import one_line
from artcafe.cli.terminal.time_params import SequenceOrTimeParam
from artcafe.errors import ArtcafeError
from artcafe.sdk.messages import Gap
from artcafe.sdk.records import KeptMessage

SHOWN: Final = 20
"""Messages shown unless --limit says otherwise: they fit a screen."""
POLL_S: Final = 1.0
"""How often --follow asks for new messages."""
REASONS: Final = {"retention": "they grew older than the channel keeps them"}

Position = int | datetime | None


@click.command(cls=ArtcafeCommand)
@click.argument("channel")
@click.option(
    "--after",
    type=SequenceOrTimeParam(),
    metavar="SEQ|TIME",
    help="Those above a sequence, or from a time on (1h, '2026-11-28 10:00', RFC 3339), oldest first.",
)
@click.option("--before", type=SequenceOrTimeParam(), metavar="SEQ|TIME", help="Those below a sequence, or before a time.")
@click.option("--limit", type=click.IntRange(min=1), default=SHOWN, show_default=True, metavar="N", help="At most so many.")
@click.option("--follow", is_flag=True, help="Prints them oldest first, and new ones as they come, until Ctrl-C.")
@in_tenant
async def history(caller: Caller, channel: str, after: Position, before: Position, limit: int, follow: bool) -> None:
    """Prints what a channel keeps. One line a message; the newest come first, or with --after the oldest.

    \b
    Examples:
      artcafe channel history chn_…
      artcafe channel history chn_… --after 1h --limit 1000 --json
      artcafe channel history chn_… --follow
    """
    if follow and before is not None:
        raise click.UsageError("--follow goes on at the end; leave out --before")
    kept = caller.rest.history(
        caller.tenant, channel, after=after, before=before, limit=limit, on_gap=lambda gap: _warn(caller, gap)
    )
    found = [each async for each in kept]
    if follow:
        await _follow(caller, channel, found if after is not None else found[::-1], after)
    elif caller.as_json:
        click.echo(f"[{','.join(_as_json(each) for each in found)}]".encode())
    else:
        _show(caller, found, limit, forward=after is not None)


def _warn(caller: Caller, gap: Gap) -> None:
    """Print on standard error what retention removed."""
    told = {"gap": {"channel": gap.channel, "from": gap.first, "to": gap.last, "reason": gap.reason}}
    why = REASONS.get(gap.reason, gap.reason)
    click.echo(json.dumps(told) if caller.as_json else f"artcafe: #{gap.first} to #{gap.last} are gone: {why}", err=True)


def _show(caller: Caller, found: list[KeptMessage], limit: int, *, forward: bool) -> None:
    for each in found:
        click.echo(_line(each))
    if not found:
        caller.note("no messages are kept there")
    elif len(found) == limit:
        further = f"--after {found[-1].seq}" if forward else f"--before {found[-1].seq}"
        caller.note(f"at most {limit} are shown; further ones: {further}")


async def _follow(caller: Caller, channel: str, found: list[KeptMessage], after: Position) -> None:
    """Print messages, oldest first, and poll for more; an error that a retry can help is printed once until it is over."""
    position, failing = after or 0, False

    def skip(gap: Gap) -> None:
        nonlocal position
        position = gap.last or position
        _warn(caller, gap)

    for each in found:
        _print(caller, each)
        position = each.seq
    while True:
        await asyncio.sleep(POLL_S)
        try:
            async for each in caller.rest.history(caller.tenant, channel, after=position, on_gap=skip):
                _print(caller, each)
                position = each.seq
            failing = False
        except ArtcafeError as exc:
            if not exc.temporary:
                raise
            if not failing:
                caller.note(f"{exc}; trying again")
            failing = True


def _print(caller: Caller, message: KeptMessage) -> None:
    click.echo(_as_json(message).encode() if caller.as_json else _line(message))


def _as_json(message: KeptMessage) -> str:
    return one_line(msgspec.json.encode(message))


def _line(message: KeptMessage) -> str:
    return f"{as_text(message.time)} #{message.seq} {as_text(message.sender)}: {one_line(bytes(message.raw))}"
