"""Progress of a long command on standard error: a bar on a terminal, one line a second elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

EVERY_S: Final = 1.0


class Progress:
    """Progress over a known number of steps, with counts of rows and messages."""

    def __init__(self, steps: int, *, is_shown: bool) -> None:
        self._steps, self._is_shown = steps, is_shown
        self._step, self._rows, self._messages = 0, 0, 0
        self._shown_at = time.monotonic()
        self._bar = click.progressbar(length=steps, label="Copying", file=sys.stderr, show_eta=False, item_show_func=self._state)
        self._is_terminal = is_shown and sys.stderr.isatty()

    def rows(self, more: int) -> None:
        """Add processed rows."""
        self._rows += more
        self._refresh()

    def messages(self, more: int) -> None:
        """Add processed messages."""
        self._messages += more
        self._refresh()

    def step(self, more: int = 1) -> None:
        """Add completed steps."""
        self._step += more
        if self._is_terminal:
            self._bar.update(more)
        self._refresh(at_once=self._step == self._steps)

    @contextmanager
    def running(self) -> Iterator[Progress]:
        """Show the bar inside the context, and restore the terminal afterwards."""
        if not self._is_terminal:
            yield self
            return
        with self._bar:
            yield self

    def _refresh(self, *, at_once: bool = False) -> None:
        if not at_once and time.monotonic() - self._shown_at < EVERY_S:
            return
        self._shown_at = time.monotonic()
        if self._is_terminal:
            self._bar.render_progress()
        elif self._is_shown:
            click.echo(f"artcafe: {self._step:,} of {self._steps:,} steps; {self._state(None)}", err=True)

    def _state(self, _item: object) -> str:
        return f"{self._rows:,} rows, {self._messages:,} messages"
