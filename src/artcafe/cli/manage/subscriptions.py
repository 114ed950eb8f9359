"""`artcafe subscription …`: manage the subscriptions of agents to channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from artcafe.cli.manage.command_context import CommandContext, in_tenant
from artcafe.cli.terminal.confirm import confirm
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import limit_option, show_all, show_deleted, show_done, show_one, yes_option
from artcafe.model import Permission, SubscriptionStatus


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def subscription() -> None:
    """Manage subscriptions: which agent receives which channel.

    \b
    Example:
      artcafe subscription create --channel news --agent scout
    """


def subscription_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that identify a subscription."""
    command = click.option("--agent", required=True, metavar="AGENT", help="The agent's handle or id.")(command)
    return click.option("--channel", required=True, metavar="CHANNEL", help="The channel's handle or id.")(command)


@subscription.command("list", cls=ArtcafeCommand)
@click.option("--channel", metavar="CHANNEL", help="List the subscriptions to this channel.")
@click.option("--agent", metavar="AGENT", help="List the subscriptions of this agent.")
@limit_option
@in_tenant
async def list_subscriptions(context: CommandContext, channel: str | None, agent: str | None, limit: int | None) -> None:
    """List the subscriptions to a channel or of an agent.

    ACKNOWLEDGED is the last acknowledged sequence, LAG the number of messages above it.

    \b
    Examples:
      artcafe subscription list --channel news
      artcafe subscription list --agent scout
    """
    columns = {
        "CHANNEL": lambda each: each.channel_handle or each.channel_id,
        "AGENT": lambda each: each.agent_handle or each.agent_id,
        "STATUS": lambda each: each.status,
        "PERMISSIONS": lambda each: each.permissions,
        "ACKNOWLEDGED": lambda each: f"#{each.cursor.seq}",
        "LAG": lambda each: each.lag,
        "LAST SEEN": lambda each: each.last_seen,
    }
    if channel and not agent:
        found, none = context.scope.subscriptions.list(channel, limit=limit), "this channel has no subscriptions yet"
    elif agent and not channel:
        found, none = context.scope.subscriptions.list_of_agent(agent, limit=limit), "this agent has no subscriptions yet"
    else:
        raise click.UsageError("give either --channel or --agent; to show one subscription: artcafe subscription show")
    await show_all(context, found, columns, none=f"{none}; create one: artcafe subscription create --channel … --agent …")


@subscription.command(cls=ArtcafeCommand)
@subscription_options
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    type=click.Choice([each.value for each in Permission]),
    help="A permission of the agent in a managed channel; may be repeated.  [default: receive, or the existing permissions]",
)
@in_tenant
async def create(context: CommandContext, channel: str, agent: str, permissions: tuple[str, ...]) -> None:
    """Subscribe an agent to a channel, from the next message on. For an existing subscription, only permissions change.

    \b
    Examples:
      artcafe subscription create --channel news --agent scout
      artcafe subscription create --channel news --agent scout --permission receive --permission publish
    """
    show_one(context, await context.scope.subscriptions.create(channel, agent, permissions=permissions or None))


@subscription.command(cls=ArtcafeCommand)
@subscription_options
@in_tenant
async def show(context: CommandContext, channel: str, agent: str) -> None:
    """Show a subscription and its acknowledged position.

    \b
    Example:
      artcafe subscription show --channel news --agent scout
    """
    show_one(context, await context.scope.subscriptions.get(channel, agent))


@subscription.command(cls=ArtcafeCommand)
@subscription_options
@in_tenant
async def pause(context: CommandContext, channel: str, agent: str) -> None:
    """Pause delivery and keep the position. Messages published in the meantime are delivered after a resume.

    \b
    Example:
      artcafe subscription pause --channel news --agent scout
    """
    status = SubscriptionStatus.PAUSED.value
    changed = await context.scope.subscriptions.update(channel, agent, status=status)
    show_done(
        context, changed, f"Paused: agent {agent} receives nothing from channel {channel} until the subscription is resumed."
    )


@subscription.command(cls=ArtcafeCommand)
@subscription_options
@in_tenant
async def resume(context: CommandContext, channel: str, agent: str) -> None:
    """Resume a paused subscription from its position.

    \b
    Example:
      artcafe subscription resume --channel news --agent scout
    """
    status = SubscriptionStatus.ACTIVE.value
    changed = await context.scope.subscriptions.update(channel, agent, status=status)
    show_done(context, changed, f"Resumed: agent {agent} continues with channel {channel} after #{changed.cursor.seq}.")


@subscription.command(cls=ArtcafeCommand)
@subscription_options
@click.option(
    "--to",
    required=True,
    metavar="SEQ|first|last|TIME",
    help="A sequence that counts as acknowledged with all before it; first: before the oldest stored message; last: after the"
    " newest; a time: before the first message stored then or later.",
)
@in_tenant
async def move(context: CommandContext, channel: str, agent: str, to: str) -> None:
    """Move the position of a subscription, forward or back. The agent's connections continue there.

    Messages above a lower position are delivered again, and messages up to a higher one never.

    \b
    Examples:
      artcafe subscription move --channel news --agent scout --to first
      artcafe subscription move --channel news --agent scout --to 41
      artcafe subscription move --channel news --agent scout --to 2026-11-22T16:50:57Z
    """
    moved = await context.scope.subscriptions.update(channel, agent, cursor=to)
    show_done(context, moved, f"Moved: agent {agent} continues with channel {channel} after #{moved.cursor.seq}.")


@subscription.command(cls=ArtcafeCommand)
@subscription_options
@yes_option
@in_tenant
async def delete(context: CommandContext, channel: str, agent: str, yes: bool) -> None:
    """Delete a subscription and its position.

    \b
    Example:
      artcafe subscription delete --channel news --agent scout --yes
    """
    found = await context.scope.subscriptions.get(channel, agent)
    what = f"the subscription of agent {found.agent_id} to channel {found.channel_id}"
    confirm(f"Delete {what} and its position", yes=yes)
    await context.scope.subscriptions.delete(channel, agent)
    show_deleted(context, what, found.id)
