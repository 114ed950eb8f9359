"""What a command publishes, read from its arguments or standard input, and JSON text as a terminal may have it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import click
import msgspec

from artcafe.sdk.messages import Receipt

CONTROLS: Final = re.compile(r"[\x7f-\x9f]")

text_option = click.option(
    "--text", "is_text", is_flag=True, is_eager=True, help="DATA is text, not JSON; it is sent as a JSON string."
)
"""Read before the data, whose meaning it changes."""


def message_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a message beside its data: `message_key`, `headers` (a mapping, or None) and `reply_to`."""
    for option in (
        click.option("--reply-to", metavar="TEXT", help="Where an answer is awaited; its meaning is the agents' own."),
        click.option(
            "--header",
            "headers",
            multiple=True,
            callback=_headers,
            metavar="NAME=VALUE",
            help="A header of the message; may be repeated.",
        ),
        click.option("--message-key", metavar="KEY", help="Repeated with the same key within 10 minutes, it is stored once."),
    ):
        command = option(command)
    return command


def _headers(_ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> Mapping[str, str] | None:
    for each in given:
        if "=" not in each:
            raise click.BadParameter(f"{each!r} is not NAME=VALUE", param=param)
    return dict(each.split("=", 1) for each in given) or None


def data_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument DATA as what is published: `data`. For a command with `text_option`."""

    def read(ctx: click.Context, _param: click.Parameter, value: str | None) -> object:
        return read_data(value, is_text=ctx.params["is_text"])

    return click.argument("data", required=False, callback=read)(command)


def read_data(argument: str | None, *, is_text: bool) -> object:
    """The argument as data; '-' or none: standard input. Raises `click.UsageError`."""
    if argument is None and sys.stdin.isatty():
        raise click.UsageError("say what to publish: DATA, or something on standard input")
    is_read = argument is None or argument == "-"
    text = sys.stdin.buffer.read().decode(errors="surrogateescape") if is_read else argument
    return parse_data(text or "", "DATA", is_text=is_text)


def parse_data(text: str, what: str, *, is_text: bool) -> object:
    """The text as what `publish` takes: JSON text stays as it was written. Raises `click.UsageError`."""
    try:
        text.encode()
        if is_text:
            return text
        msgspec.json.decode(text, type=msgspec.Raw)
    except UnicodeEncodeError:
        raise click.UsageError(f"{what} is not UTF-8 text") from None
    except (msgspec.DecodeError, RecursionError) as exc:
        raise click.UsageError(f"{what} is not JSON ({exc}); with --text it is sent as text") from None
    return msgspec.Raw(text.encode())


def position_text(seq: int | None) -> str:
    """Where a message stands, for people."""
    return "live" if seq is None else f"#{seq}"


def receipt_line(receipt: Receipt) -> str:
    """What a publish is answered, for people."""
    return f"{position_text(receipt.seq)} {receipt.message_id or '-'}{' (stored before)' if receipt.duplicate else ''}"


def one_line(text: bytes) -> str:
    """JSON without line breaks, and with the control characters that JSON lets through, and a terminal obeys, escaped."""
    if b"\n" in text or b"\r" in text:
        text = msgspec.json.format(text, indent=-1)
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text.decode())
