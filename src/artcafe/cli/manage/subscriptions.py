"""`artcafe subscription …`: which agents of a tenant receive which channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from artcafe.cli.manage.caller import Caller, in_tenant
from artcafe.cli.terminal.confirm import confirm
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import limit_option, show_all, show_deleted, show_done, show_one, yes_option
from artcafe.model import Permission, SubscriptionStatus


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def subscription() -> None:
    """Subscriptions: which agent receives which channel.

    \b
    Example:
      artcafe subscription create --channel chn_… --agent agt_…
    """


def of_both(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name one subscription."""
    command = click.option("--agent", required=True, metavar="ID", help="Whose: the agent's id.")(command)
    return click.option("--channel", required=True, metavar="ID", help="To what: the channel's id.")(command)


@subscription.command("list", cls=ArtcafeCommand)
@click.option("--channel", metavar="ID", help="Who receives this channel.")
@click.option("--agent", metavar="ID", help="What this agent receives.")
@limit_option
@in_tenant
async def list_subscriptions(caller: Caller, channel: str | None, agent: str | None, limit: int | None) -> None:
    """Lists who receives a channel, or what an agent receives.

    ACKNOWLEDGED is the sequence up to which the agent has done so.

    \b
    Examples:
      artcafe subscription list --channel chn_…
      artcafe subscription list --agent agt_…
    """
    columns = {
        "CHANNEL": lambda each: each.channel_id,
        "AGENT": lambda each: each.agent_id,
        "STATUS": lambda each: each.status,
        "PERMISSIONS": lambda each: each.permissions,
        "ACKNOWLEDGED": lambda each: f"#{each.cursor.seq}",
    }
    if channel and not agent:
        found, none = caller.rest.subscriptions(caller.tenant, channel, limit=limit), "no agent receives this channel yet"
    elif agent and not channel:
        found, none = caller.rest.agent_subscriptions(caller.tenant, agent, limit=limit), "this agent receives no channel yet"
    else:
        raise click.UsageError("say whose by either --channel or --agent; for one subscription: artcafe subscription show")
    await show_all(caller, found, columns, none=f"{none}; artcafe subscription create --channel … --agent …")


@subscription.command(cls=ArtcafeCommand)
@of_both
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    type=click.Choice([each.value for each in Permission]),
    help="What the agent may do in a managed channel; may be repeated. [default: receive, or what stands already]",
)
@in_tenant
async def create(caller: Caller, channel: str, agent: str, permissions: tuple[str, ...]) -> None:
    """Makes an agent receive a channel, from the next message on. One that stands stays, but for the permissions.

    \b
    Examples:
      artcafe subscription create --channel chn_… --agent agt_…
      artcafe subscription create --channel chn_… --agent agt_… --permission receive --permission publish
    """
    show_one(caller, await caller.rest.subscribe(caller.tenant, channel, agent, permissions=permissions or None))


@subscription.command(cls=ArtcafeCommand)
@of_both
@in_tenant
async def show(caller: Caller, channel: str, agent: str) -> None:
    """Shows a subscription, and how far its agent has acknowledged.

    \b
    Example:
      artcafe subscription show --channel chn_… --agent agt_…
    """
    show_one(caller, await caller.rest.subscription(caller.tenant, channel, agent))


@subscription.command(cls=ArtcafeCommand)
@of_both
@in_tenant
async def pause(caller: Caller, channel: str, agent: str) -> None:
    """Ends delivery and keeps the place. What is published meanwhile comes afterwards.

    \b
    Example:
      artcafe subscription pause --channel chn_… --agent agt_…
    """
    status = SubscriptionStatus.PAUSED.value
    changed = await caller.rest.update_subscription(caller.tenant, channel, agent, status=status)
    show_done(caller, changed, f"Paused: agent {agent} gets nothing of channel {channel} until it is resumed.")


@subscription.command(cls=ArtcafeCommand)
@of_both
@in_tenant
async def resume(caller: Caller, channel: str, agent: str) -> None:
    """Goes on with a subscription that was paused, from where it stood.

    \b
    Example:
      artcafe subscription resume --channel chn_… --agent agt_…
    """
    status = SubscriptionStatus.ACTIVE.value
    changed = await caller.rest.update_subscription(caller.tenant, channel, agent, status=status)
    show_done(caller, changed, f"Resumed: agent {agent} goes on with channel {channel} behind #{changed.cursor.seq}.")


@subscription.command(cls=ArtcafeCommand)
@of_both
@yes_option
@in_tenant
async def delete(caller: Caller, channel: str, agent: str, yes: bool) -> None:
    """Ends a subscription and forgets its place.

    \b
    Example:
      artcafe subscription delete --channel chn_… --agent agt_… --yes
    """
    found = await caller.rest.subscription(caller.tenant, channel, agent)
    what = f"the subscription of agent {found.agent_id} to channel {found.channel_id}"
    confirm(f"Delete {what}, and its place", yes=yes)
    await caller.rest.delete_subscription(caller.tenant, channel, agent)
    show_deleted(caller, what, found.id)
