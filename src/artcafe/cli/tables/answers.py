"""What these commands print."""

from __future__ import annotations

from collections.abc import Sequence

import click

from artcafe.cli.people.answers import aligned, as_json, plain
from artcafe.cli.tables.place import Place

yes_option = click.option("--yes", is_flag=True, help="Does it without asking.")


def show(place: Place, document: object, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints the document for programs, and its rows as a table for people."""
    if place.as_json:
        click.echo(as_json(document).encode())
        return
    for line in aligned([list(headings), *([plain("" if cell is None else str(cell)) for cell in row] for row in rows)]):
        click.echo(line)


def many(count: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def size(size_bytes: int | None) -> str:
    """A size for people."""
    if size_bytes is None:
        return ""
    number = float(size_bytes)
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1024 or unit == "GB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
