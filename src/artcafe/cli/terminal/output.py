"""What a person's command prints: aligned columns and fields for people, one JSON document for programs; and the question before
something is deleted."""

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


class OutputTarget(Protocol):
    """Whoever typed the command: a person, or a program that wants JSON."""

    @property
    def as_json(self) -> bool: ...
    def note(self, text: str) -> None:
        """Tells a person something beside the answer."""
        ...


Columns = Mapping[str, Callable[[T], object]]
"""The heading of each column, and what stands in it."""


async def show_all(caller: OutputTarget, things: AsyncIterator[T], columns: Columns[T], *, none: str) -> None:
    """Prints a list; where it is empty a person reads `none`."""
    found = [each async for each in things]
    if caller.as_json:
        click.echo(as_json(found).encode())
    elif not found:
        caller.note(none)
    else:
        rows = [[as_text(show(each)) for show in columns.values()] for each in found]
        for line in align([list(columns), *rows]):
            click.echo(line)


def show_rows(caller: OutputTarget, rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows that have the same fields: columns for people, an array for programs."""
    if caller.as_json:
        click.echo(as_json(rows).encode())
        return
    for line in align([[name.upper() for name in rows[0]], *([escape(cell) for cell in row.values()] for row in rows)]):
        click.echo(line)


def show_table(caller: OutputTarget, document: object, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print `rows` under `headings` for people, or `document` as JSON for programs."""
    if caller.as_json:
        click.echo(as_json(document).encode())
        return
    for line in align([list(headings), *([escape("" if cell is None else str(cell)) for cell in row] for row in rows)]):
        click.echo(line)


def show_one(caller: OutputTarget, thing: msgspec.Struct) -> None:
    """Prints one thing, a field a line. Fields that are empty are left out for people."""
    if caller.as_json:
        click.echo(as_json(thing).encode())
        return
    fields = {name: as_text(value) for name, value in msgspec.structs.asdict(thing).items()}
    for line in align([[name, text] for name, text in fields.items() if text]):
        click.echo(line)


def show_done(caller: OutputTarget, thing: msgspec.Struct, text: str) -> None:
    """Says that something was done to a thing: the sentence for people, the thing for programs."""
    click.echo(as_json(thing).encode() if caller.as_json else escape(text))


def show_deleted(caller: OutputTarget, what: str, id: str) -> None:
    """Says that something is gone."""
    click.echo(as_json({"id": id, "deleted": True}).encode() if caller.as_json else f"Deleted {escape(what)}.")


def _checked_key(_ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not (value and value.isascii() and value.isprintable()):
        raise click.BadParameter("must be printable ASCII characters", param=param)
    return value


idempotency_key_option = click.option(
    "--idempotency-key", metavar="KEY", callback=_checked_key, help="A text of yours: repeated with it, the thing is made once."
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
limit_option = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many; else all.")


# --- text ------------------------------------------------------------------------------------------------------------------


def as_json(thing: object) -> str:
    """One line of JSON, its times written as the server writes them. Print its bytes: JSON is UTF-8, whatever the terminal is."""
    text = json.dumps(
        msgspec.to_builtins(thing, builtin_types=(datetime,)), default=times.to_text, ensure_ascii=False, separators=(",", ":")
    )
    return one_line(text.encode())


def as_text(value: Any) -> str:
    """A value for people; empty for none."""
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
"""Characters that a terminal obeys instead of showing them: controls, and those that turn the direction of what follows."""


def escape(text: str) -> str:
    """The text on one line, with what a terminal would obey escaped."""
    return CONTROL_CHARACTERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\n", " "))


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows with every column as wide as its widest cell, two spaces between them."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(cell, wide) for cell, wide in zip(row, widths, strict=True)).rstrip() for row in rows]


def width(text: str) -> int:
    """How many columns of a terminal it takes: wide characters two, combining ones none (Unicode, annex 11)."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else not _is_over_another(char) for char in text)


def _is_over_another(char: str) -> bool:
    return unicodedata.category(char) in {"Mn", "Me", "Cf"}


def _padded(cell: str, wide: int) -> str:
    return cell + " " * (wide - width(cell))
