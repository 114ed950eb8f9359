"""How far a long command is: a bar at a terminal, a line a second elsewhere, both on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

EVERY_S: Final = 1.0


class Progress:
    """Steps of a known number, and what was done in them."""

    def __init__(self, steps: int, *, is_shown: bool) -> None:
        self._steps, self._is_shown = steps, is_shown
        self._step, self._rows, self._messages = 0, 0, 0
        self._told = time.monotonic()
        self._bar = click.progressbar(length=steps, label="Copying", file=sys.stderr, show_eta=False, item_show_func=self._state)
        self._is_terminal = is_shown and sys.stderr.isatty()

    def rows(self, more: int) -> None:
        """So many more rows are done."""
        self._rows += more
        self._tell()

    def messages(self, more: int) -> None:
        """So many more messages are done."""
        self._messages += more
        self._tell()

    def step(self, more: int = 1) -> None:
        """So many steps are done."""
        self._step += more
        if self._is_terminal:
            self._bar.update(more)
        self._tell(at_once=self._step == self._steps)

    @contextmanager
    def running(self) -> Iterator[Progress]:
        """Shows the bar, and leaves the terminal as it was."""
        if not self._is_terminal:
            yield self
            return
        with self._bar:
            yield self

    def _tell(self, *, at_once: bool = False) -> None:
        if not at_once and time.monotonic() - self._told < EVERY_S:
            return
        self._told = time.monotonic()
        if self._is_terminal:
            self._bar.render_progress()
        elif self._is_shown:
            click.echo(f"artcafe: {self._step:,} of {self._steps:,} steps; {self._state(None)}", err=True)

    def _state(self, _item: object) -> str:
        return f"{self._rows:,} rows, {self._messages:,} messages"
