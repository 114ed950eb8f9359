"""`artcafe channel …`: manage the channels of a tenant, read their history, and publish as a user."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, cast

import click
import msgspec

from artcafe.cli.manage.command_context import CommandContext, in_tenant
from artcafe.cli.manage.history import history
from artcafe.cli.manage.redrive import redrive
from artcafe.cli.manage.scheduled import cancel, scheduled
from artcafe.cli.terminal.confirm import confirm
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import (
    id_and_handle,
    idempotency_key_option,
    limit_option,
    show_all,
    show_deleted,
    show_one,
    yes_option,
)
from artcafe.cli.terminal.payload import data_argument, message_options, receipt_line, text_option
from artcafe.cli.terminal.time_params import UNIT_SECONDS
from artcafe.errors import ChannelNotFound
from artcafe.model import Access, ChannelType
from artcafe.sdk.records import ChannelInfo

access_option = click.option(
    "--access",
    type=click.Choice([each.value for each in Access]),
    help="open: for any agent of the tenant; managed: only for agents subscribed by a member.",
)


def _seconds_of(text: str) -> int | None:
    """Return the seconds of a duration such as 90s, 15m, 12h or 30d, or None for another text."""
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    return None if found is None else int(found[1]) * UNIT_SECONDS[found[2]]


class _Duration(click.ParamType["int"]):
    """A duration such as 90s, 15m, 12h or 30d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        seconds = value if isinstance(value, int) else _seconds_of(value)
        if seconds is None:
            self.fail(f"{value!r} is no duration such as 90s, 15m, 12h or 30d", param, ctx)
        return seconds


class _Retention(click.ParamType["int | Literal['plan']"]):
    """A duration such as 90s, 15m, 12h or 30d, or `plan` for the plan's retention."""

    name = "retention"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | Literal["plan"]:
        if value == "plan" or isinstance(value, int):
            return cast("int | Literal['plan']", value)  # mypy does not narrow a value that may be anything.
        seconds = _seconds_of(value)
        if seconds is None:
            self.fail(f"{value!r} is neither a duration such as 90s, 15m, 12h or 30d nor 'plan'", param, ctx)
        return seconds


retention_option = click.option(
    "--retention",
    type=_Retention(),
    metavar="TIME|plan",
    help="How long messages are kept, such as 12h or 30d; plan: the retention of the tenant's plan.",
)


class _BackOff(click.ParamType["list[int]"]):
    """Durations separated by commas, such as 1s,10s,5m, or `none`."""

    name = "back-off"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return cast("list[int]", value)
        if value == "none":
            return []
        pauses = [_seconds_of(each) for each in value.split(",")]
        if None in pauses:
            self.fail(f"{value!r} is neither durations such as 1s,10s,5m nor 'none'", param, ctx)
        return [each for each in pauses if each is not None]


def queue_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the settings of a queue channel."""
    options = (
        click.option("--ack-wait", type=_Duration(), metavar="TIME", help="Queue: time to acknowledge a message (30s)."),
        click.option(
            "--back-off",
            type=_BackOff(),
            metavar="TIMES|none",
            help="Queue: pauses before further deliveries of a message that failed, such as 1s,10s,5m.",
        ),
        click.option("--max-deliveries", type=int, metavar="N", help="Queue: deliveries before a message is a dead letter (10)."),
        click.option(
            "--key-ordered/--no-key-ordered",
            default=None,
            help="Queue: hold messages with the same header 'partition' one at a time, in order (no).",
        ),
        click.option("--dead-letter", metavar="CHANNEL", help="Queue: an existing channel for dead letters (a new one)."),
    )
    for option in reversed(options):
        command = option(command)
    return command


description_option = click.option("--description", metavar="TEXT", help="A description.")
handle_option = click.option("--handle", metavar="HANDLE", help="Its handle, which may stand for its id in every command.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def channel() -> None:
    """Manage the channels of a tenant: ordered logs of messages.

    \b
    Example:
      artcafe channel create news
    """


@channel.command("list", cls=ArtcafeCommand)
@limit_option
@in_tenant
async def list_channels(context: CommandContext, limit: int | None) -> None:
    """List the channels.

    \b
    Example:
      artcafe channel list --json
    """
    columns = {
        "HANDLE": lambda each: each.handle,
        "ID": lambda each: each.id,
        "NAME": lambda each: each.name,
        "TYPE": lambda each: each.type,
        "ACCESS": lambda each: each.access,
        "CREATED": lambda each: each.created_at,
    }
    none = "no channels yet; create one: artcafe channel create NAME"
    await show_all(context, context.scope.channels.list(limit=limit), columns, none=none)


@channel.command(cls=ArtcafeCommand)
@click.argument("name")
@click.option(
    "--type",
    "kind",
    type=click.Choice([each.value for each in ChannelType]),
    default=ChannelType.BROADCAST.value,
    show_default=True,
    help="broadcast: stores messages for every subscriber; queue: stores them, and gives each to one subscriber at a time; live:"
    " delivers to connected subscribers, and stores nothing.",
)
@handle_option
@access_option
@retention_option
@queue_options
@description_option
@idempotency_key_option
@in_tenant
async def create(
    context: CommandContext,
    name: str,
    handle: str | None,
    kind: str,
    access: str | None,
    retention: int | Literal["plan"] | None,
    ack_wait: int | None,
    back_off: list[int] | None,
    max_deliveries: int | None,
    key_ordered: bool | None,
    dead_letter: str | None,
    description: str | None,
    idempotency_key: str | None,
) -> None:
    """Create a channel, and with a queue its dead-letter channel. Everything except its type can be changed later.

    Without --handle it gets one made from its name.

    \b
    Examples:
      artcafe channel create news
      artcafe channel create tasks --type queue --ack-wait 5m --back-off 1s,10s,1m
      artcafe channel create orders --access managed --retention 7d --description "Incoming orders"
    """
    made = await context.scope.channels.create(
        name,
        handle=handle,
        description=description or "",
        type=kind,
        access=access or Access.OPEN.value,
        retention_s=None if retention == "plan" else retention,
        ack_wait_s=ack_wait,
        back_off=back_off,
        max_deliveries=max_deliveries,
        key_ordered=key_ordered,
        dead_letter=dead_letter,
        key=idempotency_key,
    )
    show_one(context, made)


@channel.command(cls=ArtcafeCommand)
@click.argument("channel")
@in_tenant
async def show(context: CommandContext, channel: str) -> None:
    """Show a channel.

    \b
    Example:
      artcafe channel show news
    """
    show_one(context, await context.scope.channels.get(channel))


@channel.command(cls=ArtcafeCommand)
@click.argument("channel")
@click.option("--name", metavar="TEXT", help="The new name.")
@handle_option
@access_option
@retention_option
@queue_options
@description_option
@in_tenant
async def update(
    context: CommandContext,
    channel: str,
    name: str | None,
    handle: str | None,
    access: str | None,
    retention: int | Literal["plan"] | None,
    ack_wait: int | None,
    back_off: list[int] | None,
    max_deliveries: int | None,
    key_ordered: bool | None,
    dead_letter: str | None,
    description: str | None,
) -> None:
    """Change a channel. Omitted options stay unchanged.

    \b
    Example:
      artcafe channel update news --name headlines --access managed
    """
    changes = {
        "name": name,
        "handle": handle,
        "access": access,
        "retention_s": retention,
        "description": description,
        "ack_wait_s": ack_wait,
        "back_off": back_off,
        "max_deliveries": max_deliveries,
        "key_ordered": key_ordered,
        "dead_letter": dead_letter,
    }
    given: dict[str, Any] = {field: value for field, value in changes.items() if value is not None}
    if not given:
        options = "--name, --handle, --access, --retention, --description or an option for queues"
        raise click.UsageError(f"nothing to change: give {options}")
    changed = await context.scope.channels.update(channel, **given)
    show_one(context, changed)


@channel.command(cls=ArtcafeCommand)
@click.argument("channel")
@yes_option
@in_tenant
async def delete(context: CommandContext, channel: str, yes: bool) -> None:
    """Delete a channel with its subscriptions and messages, and a queue with the dead-letter channel that was made with it.

    \b
    Example:
      artcafe channel delete news --yes
    """
    found = await context.scope.channels.get(channel)
    beside = await _deleted_beside(context, found)
    confirm(f"Delete channel {id_and_handle(found)} with its subscriptions and messages{beside}", yes=yes)
    await context.scope.channels.delete(found.id)
    show_deleted(context, f"channel {id_and_handle(found)}", found.id)


async def _deleted_beside(context: CommandContext, found: ChannelInfo) -> str:
    """Return what the deletion of a queue also deletes, for the confirmation."""
    if found.dead_letter is None:
        return ""
    with contextlib.suppress(ChannelNotFound):
        dead_letter = await context.scope.channels.get(found.dead_letter)
        if dead_letter.dead_letter_of == found.id:
            return f", and its dead letters in {id_and_handle(dead_letter)}"
    return ""


channel.add_command(history)
channel.add_command(redrive)
channel.add_command(scheduled)
channel.add_command(cancel)


@channel.command(cls=ArtcafeCommand)
@click.argument("channel")
@data_argument
@text_option
@message_options
@in_tenant
async def publish(
    context: CommandContext,
    channel: str,
    data: object,
    is_text: bool,
    message_key: str | None,
    headers: Mapping[str, str] | None,
    reply_to: str | None,
    caused_by: str | None,
    expires_at: datetime | None,
    deliver_at: datetime | None,
) -> None:
    """Publish DATA to CHANNEL as yourself.

    DATA is JSON; it is read from standard input if omitted or '-'. The output is the message's sequence and id, once it is on
    disk.

    \b
    Examples:
      artcafe channel publish news '{"task": "summarise"}'
      date | artcafe channel publish news --text
      artcafe channel publish news '"time is up"' --deliver-at 30m
    """
    receipt = await context.scope.messages.publish(
        channel,
        data,
        key=message_key,
        headers=headers,
        reply_to=reply_to,
        caused_by=caused_by,
        expires_at=expires_at,
        deliver_at=deliver_at,
    )
    click.echo(msgspec.json.encode(receipt) if context.as_json else receipt_line(receipt))


@channel.command(cls=ArtcafeCommand)
@click.argument("channel")
@click.argument("seq", type=click.IntRange(min=1))
@limit_option
@in_tenant
async def receipts(context: CommandContext, channel: str, seq: int, limit: int | None) -> None:
    """List the recipients of the message SEQ of CHANNEL, and what became of it.

    pending: connected, and not sent yet; delivered: sent to an open socket; acked; dead_lettered; skipped: the position was moved
    over it; away: not connected; unknown: the agent's server does not answer.

    A message of a queue has one line. pending: no agent holds it; delivered: this agent holds it now; acked: by this agent, if it
    is known; dead_lettered or expired, with the reason.

    \b
    Example:
      artcafe channel receipts news 59
    """
    columns = {
        "AGENT": lambda each: each.agent_handle or each.agent_id,
        "STATE": lambda each: each.state,
        "REASON": lambda each: each.reason,
        "ACKNOWLEDGED": lambda each: None if each.cursor is None else f"#{each.cursor}",
        "AGE": lambda each: None if each.cursor_age_s is None else f"{each.cursor_age_s} s",
        "LAST SEEN": lambda each: each.last_seen,
    }
    found = context.scope.messages.receipts(channel, seq, limit=limit)
    await show_all(context, found, columns, none="no active subscription was there when this message was stored")
