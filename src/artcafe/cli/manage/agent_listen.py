"""`artcafe agent listen`: print the messages that an agent receives, or run a command for each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import Any, Final, cast

import click
import msgspec

from artcafe.cli.manage.agent_commands import WINDOW, AgentOptions, agent_options, message_line
from artcafe.cli.manage.command_runner import CommandRunner
from artcafe.cli.manage.exec_listener import ExecListener, ExecOptions
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.payload import one_line
from artcafe.cli.terminal.signals import INTERRUPTED
from artcafe.errors import ArtcafeError
from artcafe.sdk import addresses
from artcafe.sdk.agent import Agent
from artcafe.sdk.client import Client
from artcafe.sdk.connection import STALLED
from artcafe.sdk.iteration import Messages
from artcafe.sdk.keys import Signer
from artcafe.sdk.messages import Gap, Message
from artcafe.sdk.outcome import Outcome
from artcafe.wire import frames

NAMED: Final = 3
"""Maximum number of paused channels in a note."""
TIMEOUT_S: Final = 300.0
EXTEND_S: Final = 10.0
"""A third of the ack deadline that a queue has by default."""
EXEC_ONLY: Final = ("parallel", "batch", "timeout_s", "extend_s", "give_up")


class _StartParam(click.ParamType[frames.Start]):
    """A start position: `cursor`, `new`, `first`, or a sequence."""

    name = "start"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frames.Start:
        if value in {"cursor", "new", "first"}:
            return cast(frames.Start, value)  # mypy does not narrow a str by membership.
        if not str(value).isdecimal() or not 1 <= int(value) <= frames.MAX_SEQ:
            self.fail(f"{value!r} is not cursor, new, first or a sequence from 1", param, ctx)
        return int(value)


@click.command(cls=ArtcafeCommand)
@click.argument("channels", nargs=-1, metavar="[CHANNEL]…")
@click.option(
    "--from",
    "start",
    type=_StartParam(),
    default="cursor",
    show_default=True,
    metavar="cursor|new|first|SEQ",
    help="Start position in the named channels: after the last acknowledged message, after the newest, at the oldest, or at a"
    " sequence.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Exit after this many messages.")
@click.option("--ack/--no-ack", default=True, show_default=True, help="Acknowledge each message after printing it.")
@click.option("--exec", "command", metavar="CMD", help="Run this shell command for each message instead of printing it.")
@click.option(
    "--parallel", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N", help="With --exec: processes at once."
)
@click.option(
    "--batch",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    metavar="N",
    help="With --exec: give a process up to this many waiting messages of a channel, one on each line.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True, max=86400),
    default=TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="With --exec: kill a process and its children after this time.",
)
@click.option(
    "--extend",
    "extend_s",
    type=click.FloatRange(min=0.1, max=86400),
    default=EXTEND_S,
    show_default=True,
    metavar="SECONDS",
    help="With --exec: how often to extend the deadlines of queue messages. Use less than half of the queue's --ack-wait.",
)
@click.option(
    "--give-up",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --exec: acknowledge a message after this many failed attempts. Not for queues, which have --max-deliveries.",
)
@agent_options
@click.pass_context
def listen(
    ctx: click.Context,
    options: AgentOptions,
    channels: tuple[str, ...],
    start: frames.Start,
    count: int | None,
    ack: bool,
    command: str | None,
    parallel: int,
    batch: int,
    timeout_s: float,
    extend_s: float,
    give_up: int | None,
    as_json: bool,
) -> None:
    """Print one line per received message. Named channels are subscribed to first; without any, all subscriptions are read.

    With --exec, run a command for each message instead, with the message as a line of JSON on its standard input. Exit code 0
    acknowledges the message. After another one a queue gets it back, and any other message is tried again after 0.1 to 15 s,
    before its successors. SIGTERM lets running commands finish. docs/wake.md has a systemd unit.

    \b
    Examples:
      artcafe agent listen
      artcafe agent listen news --from first --no-ack --count 10 --json
      artcafe agent listen --exec ./handle.sh --parallel 4 --timeout 60
    """
    if start != "cursor" and not channels:
        raise click.UsageError("--from requires named channels")
    if command is None:
        _check_no_exec_options(ctx)
        asyncio.run(_listen(options, channels, start, count, ack, as_json))
        return
    if not command.strip() or not ack:
        raise click.UsageError("--exec requires a command, whose exit code acknowledges: omit --no-ack")
    if os.name != "posix":
        raise click.UsageError("--exec needs process groups, which this system does not have: use Agent.on of the SDK")
    exec_options = ExecOptions(parallel, batch, extend_s, give_up, count)
    try:
        asyncio.run(_exec(options, channels, start, exec_options, CommandRunner(command, options.environ(), timeout_s)))
    except asyncio.CancelledError:  # By the second SIGTERM.
        ctx.exit(INTERRUPTED)


def _check_no_exec_options(ctx: click.Context) -> None:
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if name in EXEC_ONLY and ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"{parameter.opts[0]} requires --exec")


async def _listen(
    options: AgentOptions, channels: tuple[str, ...], start: frames.Start, count: int | None, ack: bool, as_json: bool
) -> None:
    shown = 0
    signer = options.signer()
    async with options.client(WINDOW if ack else None, signer) as agent:
        if not channels:
            await _note_silence(options, signer)
        async for item in agent.messages(*channels, start=start, gaps=True):
            if isinstance(item, Gap):
                if as_json:  # Otherwise the SDK logs it on standard error.
                    click.echo(msgspec.json.encode({"gap": item}))
                continue
            click.echo(one_line(item.json) if as_json else message_line(item))
            if ack:
                await item.ack()
            shown += 1
            if shown == count:
                return


# --- exec ----------------------------------------------------------------------------------------------------------------


async def _exec(
    options: AgentOptions, channels: tuple[str, ...], start: frames.Start, exec_options: ExecOptions, runner: CommandRunner
) -> None:
    """Run the command for messages until SIGINT, SIGTERM, `count` messages or a final error; then finish what is running."""
    for handler in logging.getLogger("artcafe").handlers:
        handler.addFilter(_tells_no_stall)
    signer = options.signer()
    listener, taken, ran = ExecListener(exec_options, runner), Outcome(), Outcome()
    async with options.client(exec_options.window, signer) as agent, asyncio.TaskGroup() as background:
        if not channels:
            await _note_silence(options, signer)
        extending = background.create_task(listener.extend())
        async with asyncio.TaskGroup() as workers:
            taking = workers.create_task(_take(listener, agent, agent.messages(*channels, start=start), workers, taken))
            with ran:
                await agent.run()
            taking.cancel()
            listener.close()
            _cancel_at_sigterm()
        extending.cancel()
        if (error := taken.error or ran.error) is not None:
            raise error


async def _take(
    listener: ExecListener, agent: Agent, messages: Messages[Message], workers: asyncio.TaskGroup, outcome: Outcome
) -> None:
    """Take messages, and let the agent's `run` return at the end. An error must not end the workers: their commands run."""
    with outcome:
        await listener.take(messages, workers)
    agent.end_run()


def _cancel_at_sigterm() -> None:
    """Let SIGTERM cancel this task, as SIGINT does: commands that still run are killed with all their processes."""
    task = asyncio.current_task()
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # Another thread than the main one.
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _tells_no_stall(record: logging.LogRecord) -> bool:
    """Drop the SDK's advice to acknowledge: here the command's exit code does."""
    return record.msg != STALLED


async def _note_silence(options: AgentOptions, signer: Signer) -> None:
    """Print a note on standard error if no subscription is active. REST lists subscriptions, the gateway does not."""
    if any(map(addresses.is_gateway, addresses.several(options.url))):
        return
    try:
        async with Client(options.url, max_retry_s=0) as rest:
            await rest.login(options.tenant, options.agent, signer, service=options.service)
            rows = [row async for row in rest.tenant(options.tenant).subscriptions.list_of_agent(options.agent)]
    except ArtcafeError:  # The note is optional; messages arrive without it.
        return
    if any(row.status == "active" for row in rows):
        return
    paused = ", ".join(row.channel_id for row in rows[:NAMED])
    why = f"all its subscriptions are paused ({paused}{', …' if len(rows) > NAMED else ''})" if rows else "it has no subscription"
    click.echo(f"artcafe: {options.agent} will receive nothing: {why}", err=True)
