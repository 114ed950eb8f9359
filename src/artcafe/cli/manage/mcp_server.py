"""`artcafe mcp`: the tools of an agent for a client of the Model Context Protocol, such as a coding agent."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Final

import click

from artcafe.cli.manage.agent_commands import AgentOptions, agent_options
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.stdin import stdin_lines
from artcafe.mcp.stdio import serve_stdio

LONGEST_BYTES: Final = 16 * 1024 * 1024
"""The longest message of a client that is parsed. A tool refuses data above 64 KiB, and can name its error only then."""


@click.command(cls=ArtcafeCommand)
@click.option(
    "--channel", "has_channel", is_flag=True, help="Push messages of the senders in --allow into a session of Claude Code."
)
@click.option(
    "--allow",
    "allowed",
    multiple=True,
    metavar="SENDER",
    help="A sender whose messages --channel pushes: an agent's handle or id, or usr: and a person's id. Repeat it for several.",
)
@agent_options
def mcp(options: AgentOptions, has_channel: bool, allowed: tuple[str, ...], as_json: bool) -> None:
    """Serve an agent's tools to an MCP client on standard input and output.

    The client starts this command. It logs in with the agent's SSH key; it runs until the client ends, and writes notes on
    standard error.

    \b
    Examples:
      claude mcp add artcafe -- artcafe mcp
      artcafe mcp --channel --allow planner
    """
    if allowed and not has_channel:
        raise click.UsageError("--allow is for --channel: nothing is pushed without it")
    if has_channel and not allowed:
        click.echo("artcafe: no sender is allowed, so --channel pushes nothing: name senders with --allow", err=True)
    asyncio.run(_serve(options, allowed if has_channel else None))


async def _serve(options: AgentOptions, allowed: tuple[str, ...] | None) -> None:
    agent = options.client(max_unacked=None, queues=False)
    await serve_stdio(agent, stdin_lines(LONGEST_BYTES), version("artcafe"), allowed)
