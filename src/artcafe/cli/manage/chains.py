"""`artcafe chain …`: chains of messages that answer each other, and the release of stopped ones."""

from __future__ import annotations

import click

from artcafe.cli.manage.command_context import CommandContext, in_tenant
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.output import show_done, show_one


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def chain() -> None:
    """Manage chains of messages that answer each other.

    A chain is named by the id of its first message, as in the error loop_stopped and in the audit. The plan limits its messages,
    and how many may answer each other one after another.

    \b
    Example:
      artcafe audit list --action chain.stop
      artcafe chain show msg_…
      artcafe chain release msg_…
    """


@chain.command(cls=ArtcafeCommand)
@click.argument("chain")
@in_tenant
async def show(context: CommandContext, chain: str) -> None:
    """Show a chain: whether it is stopped, its messages and its limits.

    A chain without an answer within the last day is not known any more.

    \b
    Example:
      artcafe chain show msg_…
    """
    show_one(context, await context.scope.chains.get(chain))


@chain.command(cls=ArtcafeCommand)
@click.argument("chain")
@in_tenant
async def release(context: CommandContext, chain: str) -> None:
    """Let a stopped chain continue until it has used its limits once more.

    \b
    Example:
      artcafe chain release msg_…
    """
    released = await context.scope.chains.release(chain)
    text = f"Chain {released.id} may have {released.max_messages} messages and {released.max_hops} hops; it has"
    show_done(context, released, f"{text} {released.messages} messages.")
