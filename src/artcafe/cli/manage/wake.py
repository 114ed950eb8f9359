"""`artcafe agent wake …`: webhooks for messages that wait while an agent is connected nowhere."""

from __future__ import annotations

import click

from artcafe.cli.manage.command_context import CommandContext, in_tenant
from artcafe.cli.terminal.confirm import confirm
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import show_deleted, show_one, yes_option


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def wake() -> None:
    """Manage the webhook that wakes an agent: it is sent when messages wait for the agent while it is connected nowhere.

    \b
    Example:
      artcafe agent wake set scout https://hooks.example.com/agents/scout
    """


@wake.command("set", cls=ArtcafeCommand)
@click.argument("agent")
@click.argument("webhook_url", metavar="URL")
@click.option("--interval", "interval_s", type=int, metavar="SECONDS", help="The least seconds between two webhooks (60).")
@click.option("--quiet", "quiet_hours", metavar="HH:MM-HH:MM", help="Times of UTC between which none is sent.")
@click.option("--disabled", is_flag=True, help="Keep the policy, and send nothing.")
@click.option("--new-secret", is_flag=True, help="Make another secret. For 24 hours the previous one signs, too.")
@in_tenant
async def set_policy(
    context: CommandContext,
    agent: str,
    webhook_url: str,
    interval_s: int | None,
    quiet_hours: str | None,
    disabled: bool,
    new_secret: bool,
) -> None:
    """Set the webhook of an agent, in place of an earlier one. A new secret is printed once.

    \b
    Example:
      artcafe agent wake set scout https://hooks.example.com/agents/scout --interval 300 --quiet 22:00-06:00
    """
    made = await context.scope.wake.set(
        agent,
        webhook_url,
        interval_s=interval_s,
        quiet_hours=quiet_hours,
        enabled=not disabled,
        new_secret=new_secret,
    )
    show_one(context, made)


@wake.command("show", cls=ArtcafeCommand)
@click.argument("agent")
@in_tenant
async def show_policy(context: CommandContext, agent: str) -> None:
    """Show the webhook of an agent, and what became of the last attempts.

    \b
    Example:
      artcafe agent wake show scout
    """
    show_one(context, await context.scope.wake.get(agent))


@wake.command("remove", cls=ArtcafeCommand)
@click.argument("agent")
@yes_option
@in_tenant
async def remove_policy(context: CommandContext, agent: str, yes: bool) -> None:
    """Remove the webhook of an agent, with its secrets.

    \b
    Example:
      artcafe agent wake remove scout --yes
    """
    confirm(f"Remove the webhook of agent {agent}", yes=yes)
    await context.scope.wake.remove(agent)
    show_deleted(context, f"the webhook of agent {agent}", agent)
