"""`artcafe agent send`: a direct message from an agent to another one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

import click

from artcafe.cli.manage.agent_commands import AgentOptions, Publisher, agent_options
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.payload import data_argument, message_options, text_option
from artcafe.wire import frames


@click.command(cls=ArtcafeCommand)
@click.argument("to")
@data_argument
@text_option
@message_options
@agent_options
def send(
    options: AgentOptions,
    to: str,
    data: object,
    is_text: bool,
    message_key: str | None,
    headers: Mapping[str, str] | None,
    reply_to: str | None,
    caused_by: str | None,
    expires_at: datetime | None,
    deliver_at: datetime | None,
    as_json: bool,
) -> None:
    """Send DATA to the inbox of the agent TO.

    The agent receives it now, or when it connects: 'artcafe agent listen' prints it. DATA is JSON; it is read from standard input
    if omitted or '-'. The output is the message's sequence and id, once it is on disk.

    \b
    Example:
      artcafe agent send scout '{"task": "summarise"}'
    """
    inbox = frames.INBOX_PREFIX + to.removeprefix(frames.INBOX_PREFIX)
    publisher = Publisher(inbox, headers, reply_to, caused_by, expires_at, deliver_at, is_text, as_json)
    asyncio.run(publisher.one(options, data, message_key))
