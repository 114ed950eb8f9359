"""The commands of an agent without a socket: pull and ack, over REST."""

from __future__ import annotations

import asyncio
from typing import Final

import click
import msgspec

from artcafe.cli.manage.agent_commands import AgentOptions, agent_options, message_line
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.payload import one_line
from artcafe.sdk.client import Client
from artcafe.sdk.pull import MAX_LIMIT, MAX_WAIT_S


@click.command(cls=ArtcafeCommand)
@click.argument("channel", required=False)
@click.option(
    "--limit", type=click.IntRange(1, MAX_LIMIT), default=50, show_default=True, metavar="N", help="At most N messages."
)
@click.option(
    "--for",
    "pull_s",
    type=click.FloatRange(0, MAX_WAIT_S),
    default=0,
    metavar="SECONDS",
    help=f"Wait for a first message, at most {MAX_WAIT_S:g} seconds.",
)
@click.option("--ack", is_flag=True, help="Acknowledge the messages after printing them. Otherwise the next pull repeats them.")
@agent_options
def pull(options: AgentOptions, channel: str | None, limit: int, pull_s: float, ack: bool, as_json: bool) -> None:
    """Print the messages that wait for the agent, one per line, and exit: for cron jobs and scripts.

    \b
    Examples:
      artcafe agent pull --ack
      artcafe agent pull news --limit 10 --for 20 --json
    """
    asyncio.run(_pull(options, channel, limit, pull_s, ack, as_json))


async def _pull(options: AgentOptions, channel: str | None, limit: int, pull_s: float, ack: bool, as_json: bool) -> None:
    async with Client(options.url, max_retry_s=0) as rest:
        await rest.login(options.tenant, options.agent, options.signer(), service=options.service)
        pulled = await rest.tenant(options.tenant).inbox(options.agent).pull(limit=limit, wait_s=pull_s, channel=channel)
        for gap in pulled.gaps if as_json else ():  # Otherwise the SDK logs them on standard error.
            click.echo(msgspec.json.encode({"gap": gap, "epoch": pulled.epoch}))
        for message in pulled:
            click.echo(one_line(message.json) if as_json else message_line(message))
        if ack:
            await pulled.ack()
        elif any(gap.reason == "epoch" for gap in pulled.gaps) and not as_json:
            click.echo(f"the log was replaced: acknowledge by 'artcafe agent ack … --epoch {pulled.epoch}'", err=True)


@click.command(cls=ArtcafeCommand)
@click.argument("channel")
@click.argument("seq", type=click.IntRange(min=0))
@click.option("--receipt", metavar="TEXT", help="The receipt of a message of a queue channel, as 'pull --json' prints it.")
@click.option(
    "--epoch",
    metavar="TEXT",
    help="The epoch of the pull, which it prints with a gap: with it, no ack counts for messages of another log. Required after a"
    " restore until the first ack.",
)
@agent_options
def ack(options: AgentOptions, channel: str, seq: int, receipt: str | None, epoch: str | None, as_json: bool) -> None:
    """Acknowledge the messages of CHANNEL up to SEQ: the next pull or connection continues after it. Prints nothing.

    In a queue channel, acknowledge one pulled message by its receipt.

    \b
    Examples:
      artcafe agent ack news 58
      artcafe agent ack tasks 58 --receipt cx3…
    """
    asyncio.run(_ack(options, channel, seq, receipt, epoch))


async def _ack(options: AgentOptions, channel: str, seq: int, receipt: str | None, epoch: str | None) -> None:
    async with Client(options.url, max_retry_s=0) as rest:
        await rest.login(options.tenant, options.agent, options.signer(), service=options.service)
        await rest.tenant(options.tenant).inbox(options.agent).ack(channel, seq, receipt=receipt, epoch=epoch)


COMMANDS: Final = (pull, ack)
