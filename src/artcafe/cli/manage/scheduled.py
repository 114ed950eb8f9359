"""`artcafe channel scheduled` and `cancel`: messages of a channel that are to be delivered later."""

from __future__ import annotations

import click
import msgspec

from artcafe.cli.manage.command_context import CommandContext, in_tenant
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import limit_option, show_all, show_deleted
from artcafe.cli.terminal.payload import one_line


@click.command(cls=ArtcafeCommand)
@click.argument("channel")
@limit_option
@in_tenant
async def scheduled(context: CommandContext, channel: str, limit: int | None) -> None:
    """List the messages of CHANNEL that are to be delivered later, in the order of their delivery.

    \b
    Examples:
      artcafe channel publish reminders '"time is up"' --deliver-at 30m
      artcafe channel scheduled reminders
    """
    found = context.scope.scheduled.list(channel, limit=limit)
    if context.as_json:  # the data of a message is printed as it was published
        texts = [one_line(msgspec.json.encode(each)) async for each in found]
        click.echo(f"[{','.join(texts)}]".encode())
        return
    await show_all(
        context,
        found,
        {
            "DELIVER AT": lambda each: each.deliver_at,
            "ID": lambda each: each.message_id,
            "FROM": lambda each: each.sender,
            "DATA": lambda each: one_line(bytes(each.raw)),
        },
        none="No message is scheduled in this channel.",
    )


@click.command(cls=ArtcafeCommand)
@click.argument("channel")
@click.argument("message_id")
@in_tenant
async def cancel(context: CommandContext, channel: str, message_id: str) -> None:
    """Cancel a scheduled message: it is not delivered.

    Fails if the message was delivered before, and names its sequence then.

    \b
    Example:
      artcafe channel cancel reminders msg_…
    """
    await context.scope.scheduled.cancel(channel, message_id)
    show_deleted(context, f"the scheduled message {message_id}", message_id)
