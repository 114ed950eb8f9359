"""The commands of an agent with its SSH key: login and publish, and the options that all its commands share."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec

import click
import msgspec

from artcafe.cli.manage.credentials import DEFAULT_URL, read_server_info
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.payload import (
    message_options,
    one_line,
    parse_data,
    position_text,
    read_data,
    receipt_line,
    text_option,
)
from artcafe.cli.terminal.stdin import stdin_lines
from artcafe.errors import ArtcafeError, KeyLocked
from artcafe.sdk.agent import Agent
from artcafe.sdk.client import Client
from artcafe.sdk.keys import Signer, load_signer
from artcafe.sdk.messages import Message, Receipt

P = ParamSpec("P")

DEFAULT_DATA_DIR: Final = "artcafe-data"
WAIT_S: Final = 5.0
"""Long enough for a server that is starting, short enough to report a wrong address soon."""
WINDOW: Final = 64
"""Maximum number of publishes in flight with `--lines`; their order is kept. Also the limit of unacknowledged deliveries."""


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """The options of an agent's commands: its credentials and the server's address."""

    url: str
    tenant: str
    agent: str
    key: Path
    wait_s: float
    service: str | None

    def signer(self) -> Signer:
        """Load the agent's key, prompting for its passphrase at a terminal."""
        try:
            return load_signer(self.key)
        except KeyLocked:
            if not sys.stderr.isatty():
                raise
            return load_signer(self.key, click.prompt(f"Passphrase of {self.key}", hide_input=True, err=True))

    def client(self, max_unacked: int | None = WINDOW, signer: Signer | None = None, *, queues: bool = True) -> Agent:
        """Return the agent's client, an asynchronous context manager. `queues`: whether messages of queues are pushed to it."""
        return Agent(
            self.url,
            tenant=self.tenant,
            agent=self.agent,
            key=signer or self.signer(),
            service=self.service,
            max_unacked=max_unacked,
            connect_timeout_s=self.wait_s,
            queues=queues,
            max_retry_s=0,
        )

    def environ(self) -> dict[str, str]:
        """Return the options as environment variables, for a command that acts as the same agent."""
        given = {"URL": self.url, "TENANT": self.tenant, "AGENT": self.agent, "KEY": str(self.key), "SERVICE": self.service}
        return {f"ARTCAFE_{name}": value for name, value in given.items() if value is not None}


def agent_options(command: Callable[P, None]) -> Callable[..., None]:
    """Add the options shared by the commands of an agent, passed as one `options` argument."""

    @wraps(command)
    def wrapped(
        *args: Any,
        url: str | None,
        tenant: str | None,
        agent: str | None,
        key: Path | None,
        wait_s: float,
        service: str | None,
        **kwargs: Any,
    ) -> None:
        _log_to_stderr()
        missing = [name for name, value in (("tenant", tenant), ("agent", agent), ("key", key)) if not value]
        if missing or not tenant or not agent or not key:
            raise click.UsageError(
                f"missing {', '.join(f'--{name}' for name in missing)}"
                f" (environment: {', '.join(f'ARTCAFE_{name.upper()}' for name in missing)})"
            )
        options = AgentOptions(url or _server_here(), tenant, agent, key, wait_s, service)
        command(*args, options=options, **kwargs)  # type: ignore[arg-type]  # click passes by name

    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON, including errors."),
        click.option(
            "--wait",
            "wait_s",
            type=click.FloatRange(min=0, max=3600),
            default=WAIT_S,
            show_default=True,
            metavar="SECONDS",
            help="How long to retry the first connection to an unreachable server.",
        ),
        click.option(
            "--service",
            envvar="ARTCAFE_SERVICE",
            metavar="NAME",
            help="Log in only to this service, as named in its challenge.  [env: ARTCAFE_SERVICE]",
        ),
        click.option(
            "--key",
            envvar="ARTCAFE_KEY",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Its SSH private key, or the .pub file of a key in ssh-agent.  [env: ARTCAFE_KEY]",
        ),
        click.option("--agent", envvar="ARTCAFE_AGENT", metavar="AGENT", help="The agent's handle or id.  [env: ARTCAFE_AGENT]"),
        click.option("--tenant", envvar="ARTCAFE_TENANT", metavar="ID", help="Its tenant's id.  [env: ARTCAFE_TENANT]"),
        click.option(
            "--url",
            envvar="ARTCAFE_URL",
            metavar="URL",
            help=(
                "The REST address, or the gateway's (ws://…) except for login; several, separated by commas, for failover."
                f"  [env: ARTCAFE_URL; default: the server of the data folder ({DEFAULT_DATA_DIR}, or ARTCAFE_DATA_DIR),"
                f" or {DEFAULT_URL}]"
            ),
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


def _server_here() -> str:
    """Return the address of the server that runs on the data folder, or the default address."""
    return read_server_info(Path(os.environ.get("ARTCAFE_DATA_DIR") or DEFAULT_DATA_DIR)).get("url", DEFAULT_URL)


def _log_to_stderr() -> None:
    """Log connection events to standard error; standard output is for messages and results."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("artcafe: %(message)s"))
    log = logging.getLogger("artcafe")
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)  # A reconnect is logged at this level.
    log.propagate = False


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def agent() -> None:
    """Connect as an agent, with its SSH key.

    \b
    Set the agent's identity once in the environment:
      export ARTCAFE_TENANT=ten_… ARTCAFE_AGENT=scout ARTCAFE_KEY=./agent_key
    """


# --- login ---------------------------------------------------------------------------------------------------------------


@agent.command(cls=ArtcafeCommand)
@agent_options
def login(options: AgentOptions, as_json: bool) -> None:
    """Log in over REST and print an access token, valid for 15 minutes.

    \b
    Example:
      curl -s $ARTCAFE_URL/v1/me -H "Authorization: Bearer $(artcafe agent login)"
    """
    asyncio.run(_login(options, as_json))


async def _login(options: AgentOptions, as_json: bool) -> None:
    signer = options.signer()
    async with Client(options.url, max_retry_s=0) as rest:
        token = await rest.login(options.tenant, options.agent, signer, service=options.service)
    click.echo(msgspec.json.encode(token) if as_json else token.access_token)


# --- publish -------------------------------------------------------------------------------------------------------------


@agent.command(cls=ArtcafeCommand)
@click.argument("channel")
@click.argument("data", required=False)
@text_option
@click.option("--lines", "by_line", is_flag=True, help="Publish each non-empty line of standard input as a message.")
@message_options
@agent_options
def publish(
    options: AgentOptions,
    channel: str,
    data: str | None,
    is_text: bool,
    by_line: bool,
    message_key: str | None,
    headers: Mapping[str, str] | None,
    reply_to: str | None,
    caused_by: str | None,
    expires_at: datetime | None,
    deliver_at: datetime | None,
    as_json: bool,
) -> None:
    """Publish DATA to CHANNEL, or to '@' and an agent.

    DATA is JSON; it is read from standard input if omitted or '-'. The output is the message's sequence and id, once it is on
    disk.

    \b
    Examples:
      artcafe agent publish news '{"task": "summarise"}'
      artcafe agent publish news --text "hello"
      tail -f app.log | artcafe agent publish news --lines --text
    """
    if by_line and (data not in {None, "-"} or message_key is not None):
        raise click.UsageError("--lines reads standard input and assigns a key to each line: omit DATA and --message-key")
    send = Publisher(channel, headers, reply_to, caused_by, expires_at, deliver_at, is_text, as_json)
    if by_line:
        asyncio.run(send.lines(options))
    else:
        asyncio.run(send.one(options, read_data(data, is_text=is_text), message_key))


@dataclass(frozen=True, slots=True)
class Publisher:
    """Publisher of a command's messages, which also prints their receipts."""

    channel: str
    headers: Mapping[str, str] | None
    reply_to: str | None
    caused_by: str | None
    expires_at: datetime | None
    deliver_at: datetime | None
    is_text: bool
    as_json: bool

    async def one(self, options: AgentOptions, data: object, key: str | None) -> None:
        async with options.client() as agent:
            self.show(await self.publish(agent, data, key))

    async def publish(self, agent: Agent, data: object, key: str | None = None) -> Receipt:
        return await agent.publish(
            self.channel,
            data,
            key=key,
            headers=self.headers,
            reply_to=self.reply_to,
            caused_by=self.caused_by,
            expires_at=self.expires_at,
            deliver_at=self.deliver_at,
        )

    async def lines(self, options: AgentOptions) -> None:
        """Publish lines concurrently as they arrive, and print receipts in order, until end of input or the first failure."""
        refused: click.UsageError | None = None
        async with options.client() as agent, asyncio.TaskGroup() as group:
            under_way: asyncio.Queue[asyncio.Task[Receipt] | None] = asyncio.Queue(WINDOW)
            group.create_task(self._show_all(under_way))
            async for number, line in stdin_lines():
                try:
                    data = parse_data(line, f"line {number}", is_text=self.is_text)
                except click.UsageError as exc:
                    refused = exc
                    break
                await under_way.put(group.create_task(self._line(agent, data, number)))
            await under_way.put(None)
        if refused is not None:
            raise refused

    async def _line(self, agent: Agent, data: object, number: int) -> Receipt:
        try:
            return await self.publish(agent, data)
        except ArtcafeError as exc:
            raise type(exc).from_text(f"line {number}: {exc}") from exc

    async def _show_all(self, under_way: asyncio.Queue[asyncio.Task[Receipt] | None]) -> None:
        while (task := await under_way.get()) is not None:
            self.show(await task)

    def show(self, receipt: Receipt) -> None:
        if self.as_json:
            click.echo(msgspec.json.encode(receipt))
        else:
            click.echo(receipt_line(receipt))


def message_line(message: Message) -> str:
    """Return a message as a line of text."""
    position = position_text(message.seq)
    return f"{message.time:%Y-%m-%dT%H:%M:%SZ} {message.channel} {position} {message.sender}: {one_line(message.raw)}"
