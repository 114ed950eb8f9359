"""Message data from arguments or standard input, and JSON text made safe for a terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import click
import msgspec

from artcafe.cli.terminal.time_params import TimeParam
from artcafe.sdk.messages import Receipt

CONTROLS: Final = re.compile(r"[\x7f-\x9f]")

text_option = click.option(
    "--text", "is_text", is_flag=True, is_eager=True, help="Treat DATA as text, not JSON, and send it as a JSON string."
)
"""Eager, because `data_argument` depends on it."""


def _headers(_ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> Mapping[str, str] | None:
    for each in given:
        if "=" not in each:
            raise click.BadParameter(f"{each!r} is not NAME=VALUE", param=param)
    return dict(each.split("=", 1) for each in given) or None


header_option = click.option(
    "--header",
    "headers",
    multiple=True,
    callback=_headers,
    metavar="NAME=VALUE",
    help="Add a header to the message; may be repeated.",
)


def message_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a message except its data: `message_key`, `headers` (a mapping, or None), `reply_to`, `caused_by`,
    `expires_at` and `deliver_at` (times, or None)."""
    for option in (
        click.option(
            "--deliver-at",
            type=TimeParam(ahead=True),
            metavar="TIME",
            help="Store the message now, and deliver it at this time, such as 10m or '2026-11-28 10:00' (UTC).",
        ),
        click.option(
            "--expires-at",
            type=TimeParam(ahead=True),
            metavar="TIME",
            help="Do not deliver the message from this time on, such as 10m or '2026-11-28 10:00' (UTC).",
        ),
        click.option("--caused-by", metavar="ID", help="The id of the message that this one answers."),
        click.option("--reply-to", metavar="TEXT", help="Where replies are expected; agents define its meaning."),
        header_option,
        click.option(
            "--message-key",
            metavar="KEY",
            help="Deduplicate by this key: repeated within 10 minutes, the message is stored once.",
        ),
    ):
        command = option(command)
    return command


def data_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument DATA, parsed for publishing as `data`. The command must also have `text_option`."""

    def read(ctx: click.Context, _param: click.Parameter, value: str | None) -> object:
        return read_data(value, is_text=ctx.params["is_text"])

    return click.argument("data", required=False, callback=read)(command)


def read_data(argument: str | None, *, is_text: bool) -> object:
    """Parse the argument, or standard input for '-' or None. Raises click.UsageError."""
    if argument is None and sys.stdin.isatty():
        raise click.UsageError("no data to publish: give DATA, or pipe it to standard input")
    is_read = argument is None or argument == "-"
    text = sys.stdin.buffer.read().decode(errors="surrogateescape") if is_read else argument
    return parse_data(text or "", "DATA", is_text=is_text)


def parse_data(text: str, what: str, *, is_text: bool) -> object:
    """Parse `text` for `publish`: keep valid JSON as written, or return the string itself for `is_text`.

    `what` names the input in errors. Raises click.UsageError.
    """
    try:
        text.encode()
        if is_text:
            return text
        msgspec.json.decode(text, type=msgspec.Raw)
    except UnicodeEncodeError:
        raise click.UsageError(f"{what} is not UTF-8 text") from None
    except (msgspec.DecodeError, RecursionError) as exc:
        raise click.UsageError(f"{what} is not JSON ({exc}); use --text to send it as text") from None
    return msgspec.Raw(text.encode())


def position_text(seq: int | None) -> str:
    """Return the position of a message for display: `#41`, or `live` for an unstored one."""
    return "live" if seq is None else f"#{seq}"


def receipt_line(receipt: Receipt) -> str:
    """Return the receipt of a publish as one line for display."""
    return f"{position_text(receipt.seq)} {receipt.message_id or '-'}{' (stored before)' if receipt.duplicate else ''}"


def one_line(text: bytes) -> str:
    """Return JSON on one line, and escape the control characters that JSON allows and a terminal interprets."""
    if b"\n" in text or b"\r" in text:
        text = msgspec.json.format(text, indent=-1)
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text.decode())
