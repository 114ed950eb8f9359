"""The table of what each fault cost, printed at the end of `make faults`."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Final

import pytest

from tests.faults.checker import Broken, Verdict

SEED: Final = int(os.environ.get("ARTCAFE_TEST_SEED", random.randrange(2**32)))
"""Says when the long tests strike; ARTCAFE_TEST_SEED repeats a run's moments."""

Report = Callable[[str, Verdict], None]

HEADINGS = (
    "fault",
    "published",
    "acknowledged",
    "unknown",
    "refused",
    "lost",
    "doubled",
    "out of order",
    "other",
    "repeats",
    "s",
)
ROWS = pytest.StashKey[list[tuple[object, ...]]]()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """`report("kill -9 of nats-server", verdict)` puts a row into the table."""
    began = time.monotonic()
    rows = request.config.stash.setdefault(ROWS, [])

    def note(fault: str, verdict: Verdict) -> None:
        rows.append((fault, *_figures(verdict), round(time.monotonic() - began)))

    return note


def _figures(verdict: Verdict) -> list[int]:
    counts = verdict.counts
    shown = [counts[Broken.LOST], counts[Broken.DOUBLED], counts[Broken.DISORDER]]
    other = sum(counts.values()) - sum(shown)
    return [verdict.published, verdict.acknowledged, verdict.unknown, verdict.refused, *shown, other, verdict.repeats]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the table, as Markdown, where --faults was given."""
    rows = config.stash.get(ROWS, [])
    if not rows or not config.getoption("--faults"):
        return
    terminalreporter.section(f"faults (ARTCAFE_TEST_SEED={SEED})")
    terminalreporter.line("| " + " | ".join(HEADINGS) + " |")
    terminalreporter.line("| --- |" + " ---: |" * (len(HEADINGS) - 1))
    for row in rows:
        terminalreporter.line("| " + " | ".join(map(str, row)) + " |")
