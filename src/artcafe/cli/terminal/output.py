"""Command output: aligned columns and fields for people, one JSON document with `--json`; and options shared by commands."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

import click
import msgspec

from artcafe.cli.terminal.payload import one_line
from artcafe.rules import times

T = TypeVar("T", bound=msgspec.Struct)


class HasHandle(Protocol):
    """An agent or a channel. `handle` is None for a row of an older system."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def handle(self) -> str | None: ...


class OutputTarget(Protocol):
    """The receiver of a command's output: a person, or a program that asked for JSON."""

    @property
    def as_json(self) -> bool: ...
    def note(self, text: str) -> None:
        """Print a note on standard error for a person; do nothing for a program."""
        ...


Columns = Mapping[str, Callable[[T], object]]
"""Column headings, with a function that returns the column's value."""


async def show_all(target: OutputTarget, things: AsyncIterator[T], columns: Columns[T], *, none: str) -> None:
    """Print a list as a table or a JSON array; for people, print `none` when it is empty."""
    found = [each async for each in things]
    if target.as_json:
        click.echo(as_json(found).encode())
    elif not found:
        target.note(none)
    else:
        rows = [[as_text(show(each)) for show in columns.values()] for each in found]
        for line in align([list(columns), *rows]):
            click.echo(line)


def show_rows(target: OutputTarget, rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows with equal fields: columns for people, a JSON array for programs."""
    if target.as_json:
        click.echo(as_json(rows).encode())
        return
    for line in align([[name.upper() for name in rows[0]], *([escape(cell) for cell in row.values()] for row in rows)]):
        click.echo(line)


def show_table(target: OutputTarget, document: object, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print `rows` under `headings` for people, or `document` as JSON for programs."""
    if target.as_json:
        click.echo(as_json(document).encode())
        return
    for line in align([list(headings), *([escape("" if cell is None else str(cell)) for cell in row] for row in rows)]):
        click.echo(line)


def show_one(target: OutputTarget, thing: msgspec.Struct) -> None:
    """Print one record: one field per line without empty fields for people, JSON for programs."""
    if target.as_json:
        click.echo(as_json(thing).encode())
        return
    fields = {name: as_text(value) for name, value in msgspec.structs.asdict(thing).items()}
    for line in align([[name, text] for name, text in fields.items() if text]):
        click.echo(line)


def show_done(target: OutputTarget, thing: msgspec.Struct, text: str) -> None:
    """Print the result of a change: `text` for people, the changed record for programs."""
    click.echo(as_json(thing).encode() if target.as_json else escape(text))


def id_and_handle(thing: HasHandle) -> str:
    """Return the id, which never names another record, and the handle (without one the name), which people recognise."""
    return f"{thing.id} ({thing.handle or thing.name})"


def show_deleted(target: OutputTarget, what: str, id: str) -> None:
    """Print that something was deleted."""
    click.echo(as_json({"id": id, "deleted": True}).encode() if target.as_json else f"Deleted {escape(what)}.")


def _checked_key(_ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not (value and value.isascii() and value.isprintable()):
        raise click.BadParameter("must be printable ASCII characters", param=param)
    return value


idempotency_key_option = click.option(
    "--idempotency-key",
    metavar="KEY",
    callback=_checked_key,
    help="Any text of yours; a repeated command with the same key creates the record once.",
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
limit_option = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Maximum number of entries.  [default: all]")


# --- text ------------------------------------------------------------------------------------------------------------------


def as_json(thing: object) -> str:
    """Return one line of JSON with times in the server's format. Print its UTF-8 bytes, whatever the terminal's encoding is."""
    text = json.dumps(
        msgspec.to_builtins(thing, builtin_types=(datetime,)), default=times.to_text, ensure_ascii=False, separators=(",", ":")
    )
    return one_line(text.encode())


def as_text(value: Any) -> str:
    """Return a value for display; "" for None."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {as_text(each)}" for name, each in value.items() if each is not None)
    if isinstance(value, tuple | list):
        return ", ".join(as_text(each) for each in value)
    return escape(str(value))


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: `1 row`, `2,000 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size_text(size_bytes: int | None) -> str:
    """Return a size in B, KB, MB or GB (of 1,024), or "" for None."""
    if size_bytes is None:
        return ""
    number = float(size_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1024 or unit == "GB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


CONTROL_CHARACTERS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal interprets instead of showing: control characters and bidirectional formatting characters."""


def escape(text: str) -> str:
    """Return the text on one line, with characters escaped that a terminal would interpret."""
    return CONTROL_CHARACTERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\n", " "))


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines whose columns are as wide as their widest cell, separated by two spaces."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(cell, wide) for cell, wide in zip(row, widths, strict=True)).rstrip() for row in rows]


def width(text: str) -> int:
    """Return the width in terminal columns: two for wide characters, none for combining ones (Unicode Standard Annex 11)."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else not _is_zero_width(char) for char in text)


def _is_zero_width(char: str) -> bool:
    return unicodedata.category(char) in {"Mn", "Me", "Cf"}


def _padded(cell: str, wide: int) -> str:
    return cell + " " * (wide - width(cell))
