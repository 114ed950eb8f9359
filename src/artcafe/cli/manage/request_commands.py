"""`artcafe agent ask`: send a request to an agent, and print its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import click
import msgspec

from artcafe.cli.manage.agent_commands import AgentOptions, agent_options
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.payload import header_option, read_data, text_option
from artcafe.wire import frames


@click.command(cls=ArtcafeCommand)
@click.argument("other", metavar="AGENT")
@click.argument("data", required=False)
@text_option
@click.option("--stream", "is_stream", is_flag=True, help="Take several answers, and print each as it arrives.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=frames.MIN_TIMEOUT_S, max=frames.MAX_TIMEOUT_S),
    default=frames.DEFAULT_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the last answer.",
)
@header_option
@agent_options
def ask(
    options: AgentOptions,
    other: str,
    data: str | None,
    is_text: bool,
    is_stream: bool,
    timeout_s: float,
    headers: Mapping[str, str] | None,
    as_json: bool,
) -> None:
    """Send DATA as a request to AGENT, a handle or an id, and print the answer as JSON.

    DATA is JSON; it is read from standard input if omitted or '-'. The request is sent at most once.

    \b
    Examples:
      artcafe agent ask researcher '{"task": "summarise"}'
      artcafe agent ask researcher --text "list" --stream
    """
    asyncio.run(
        _ask(options, other, read_data(data, is_text=is_text), headers, timeout_s, frames.MAX_REPLIES if is_stream else 1)
    )


async def _ask(
    options: AgentOptions, other: str, data: object, headers: Mapping[str, str] | None, timeout_s: float, max_replies: int
) -> None:
    async with options.client() as asker:
        answers = asker.ask_stream(other, data, timeout_s=timeout_s, headers=headers, max_replies=max_replies)
        async for answer in answers:
            click.echo(msgspec.json.encode(answer))
