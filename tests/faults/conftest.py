"""Print the table of the results of each fault at the end of `make faults`."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.faults.checker import Broken, Verdict
from tests.faults.client_view import ClientView
from tests.faults.fault_tables import RULING_FIGURES, TABLES_FILE, FaultTables, Row
from tests.faults.promise_table import PromiseTable
from tests.faults.queue_checker import QueueBroken, QueueVerdict
from tests.faults.verdicts import Ruling

SEED: Final = int(os.environ.get("ARTCAFE_TEST_SEED", random.randrange(2**32)))
"""Choose the moments at which the long tests inject faults; ARTCAFE_TEST_SEED repeats a run's moments."""

PROMISES = pytest.StashKey[PromiseTable]()


def _promises_of(request: pytest.FixtureRequest) -> Callable[[str, int, int, int], None]:
    """Return a function that counts a run for the sentences that the test is marked with."""
    table = request.config.stash.setdefault(PROMISES, PromiseTable())
    return partial(table.add, _marks_of(request))


def _marks_of(request: pytest.FixtureRequest) -> list[str]:
    """Return the clauses that the test is marked with."""
    return [str(id) for mark in request.node.iter_markers("promise") for id in mark.args]


Report = Callable[[str, Verdict], None]

ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """`report("kill -9 of nats-server", verdict)` adds a row to the table."""
    began = time.monotonic()
    rows = request.config.stash.setdefault(ROWS, [])

    promises = _promises_of(request)

    def note(fault: str, verdict: Verdict) -> None:
        promises(fault, verdict.published, verdict.deliveries, len(verdict.findings))
        rows.append((fault, *_figures(verdict), round(time.monotonic() - began)))

    return note


def _figures(verdict: Verdict) -> list[int]:
    counts = verdict.counts
    shown = [counts[Broken.LOST], counts[Broken.DOUBLED], counts[Broken.DISORDER]]
    other = sum(counts.values()) - sum(shown)
    return [verdict.published, verdict.acknowledged, verdict.unknown, verdict.refused, *shown, other, verdict.repeats]


TableReport = Callable[[str, int, int, int, Counter[str], int, int], None]

TABLE_ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture
def table_report(request: pytest.FixtureRequest) -> TableReport:
    """Add a row to the table of faults of the table engine."""
    began = time.monotonic()
    rows = request.config.stash.setdefault(TABLE_ROWS, [])

    def note(fault: str, made: int, calls: int, failed: int, outcomes: Counter[str], lost: int, doubled: int) -> None:
        answers = outcomes["ok"], outcomes["refused"], outcomes["unknown"]
        rows.append((fault, made, calls, failed, *answers, lost, doubled, round(time.monotonic() - began)))

    return note


QueueReport = Callable[[str, QueueVerdict], None]

QUEUE_ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture
def queue_report(request: pytest.FixtureRequest) -> QueueReport:
    """Add a row to the table of work queues."""
    began = time.monotonic()
    rows = request.config.stash.setdefault(QUEUE_ROWS, [])

    promises = _promises_of(request)

    def note(fault: str, verdict: QueueVerdict) -> None:
        promises(fault, verdict.stored, verdict.deliveries, len(verdict.findings))
        shown = [verdict.counts[QueueBroken.LOST], verdict.counts[QueueBroken.TWO_HOLDERS]]
        figures = [verdict.stored, verdict.deliveries, verdict.redelivered, verdict.acked, verdict.dead, *shown]
        rows.append((fault, *figures, len(verdict.findings) - sum(shown), round(time.monotonic() - began)))

    return note


RulingReport = Callable[[str, Mapping[str, Ruling]], None]

SENTENCE_FIGURES: Final = {
    "requests": ("q", "requests", "handled"),
    "pulls": ("p", "messages", "pulled"),
    "receipts": ("c", "receipts", "states"),
    "scheduled messages": ("es", "stored", "delivered"),
}
"""By the name of a traffic: the first letters of its sentences, and its amounts that their table shows as publishes and
deliveries. Those of all traffics count for the twelve sentences, whose ids begin with digits, and for restores, with `r`."""
RULING_ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture
def ruling_report(request: pytest.FixtureRequest) -> RulingReport:
    """Add a row to the table of requests, pulls, receipts and scheduled messages."""
    began = time.monotonic()
    rows = request.config.stash.setdefault(RULING_ROWS, [])
    table = request.config.stash.setdefault(PROMISES, PromiseTable())
    ids = _marks_of(request)

    def note(fault: str, rulings: Mapping[str, Ruling]) -> None:
        figures = [rulings[name].amounts[each] for name, shown in RULING_FIGURES.items() for each in shown]
        violations = sum(len(each.violations) for each in rulings.values())
        all_publishes = all_deliveries = 0
        for name, (letters, *shown) in SENTENCE_FIGURES.items():
            publishes, deliveries = (rulings[name].amounts[each] for each in shown)
            all_publishes, all_deliveries = all_publishes + publishes, all_deliveries + deliveries
            of_traffic = [id for id in ids if id[0] in letters]
            table.add(of_traffic, fault, publishes, deliveries, len(rulings[name].violations))
        table.add([id for id in ids if id[0].isdigit() or id[0] == "r"], fault, all_publishes, all_deliveries, violations)
        rows.append((fault, *figures, violations, round(time.monotonic() - began)))

    return note


ClientReport = Callable[[str, str, ClientView], None]

CLIENT_ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture
def client_report(request: pytest.FixtureRequest) -> ClientReport:
    """`client_report("rolling upgrade", "queue", view)` adds a row to the table of what clients saw."""
    rows = request.config.stash.setdefault(CLIENT_ROWS, [])

    promises = _promises_of(request)

    def note(fault: str, traffic: str, view: ClientView) -> None:
        promises(fault, view.acknowledged, view.deliveries, view.lost + view.other)
        times = (f"{view.slowest_publish_s:.1f}", f"{view.longest_pause_s:.1f}")
        rows.append((fault, traffic, view.acknowledged, view.lost, view.repeated, view.other, *times, view.reconnects))

    return note


TABLES: Final = {
    "broadcast channels": ROWS,
    "work queues": QUEUE_ROWS,
    "requests, pulls, receipts, scheduled messages": RULING_ROWS,
    "what clients saw": CLIENT_ROWS,
    "faults of the tables": TABLE_ROWS,
}
"""By its title, where the rows of a table of `fault_tables` are."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the tables, as Markdown, if --faults was given; or write them into the file that the runner of all files names."""
    if not config.getoption("--faults"):
        return
    found = FaultTables(
        rows={title: config.stash.get(key, []) for title, key in TABLES.items()},
        promises=config.stash.get(PROMISES, PromiseTable()),
        self_tests=_self_tests(terminalreporter),
    )
    if file := os.environ.get(TABLES_FILE):
        Path(file).write_bytes(found.encoded())
    else:
        terminalreporter.write_line(found.text(SEED))


def _self_tests(reporter: pytest.TerminalReporter) -> list[Row]:
    """Return how many tests of each checker, most of them of a planted fault, have passed and failed."""
    passed, failed = (
        Counter(each.location[0].rpartition("/test_")[2] for each in reporter.stats.get(outcome, []))
        for outcome in ("passed", "failed")
    )
    checkers = sorted(each for each in passed | failed if each.endswith("checker.py"))
    return [(each, passed[each], failed[each]) for each in checkers]
