"""Print the table of the results of each fault at the end of `make faults`."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import pytest

from tests.faults.checker import Broken, Verdict
from tests.faults.client_view import ClientView
from tests.faults.promise_table import PROMISE_HEADINGS, PromiseTable
from tests.faults.queue_checker import QueueBroken, QueueVerdict
from tests.faults.verdicts import Ruling

SEED: Final = int(os.environ.get("ARTCAFE_TEST_SEED", random.randrange(2**32)))
"""Choose the moments at which the long tests inject faults; ARTCAFE_TEST_SEED repeats a run's moments."""

PROMISES = pytest.StashKey[PromiseTable]()


def _promises_of(request: pytest.FixtureRequest) -> Callable[[str, int, int, int], None]:
    """Return a function that counts a run for the sentences that the test is marked with."""
    table = request.config.stash.setdefault(PROMISES, PromiseTable())
    return partial(table.add, [str(id) for mark in request.node.iter_markers("promise") for id in mark.args])


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

TABLE_HEADINGS = ("fault", "writes and reads", "calls", "failed", "answered", "refused", "unknown", "lost", "doubled", "s")
TABLE_ROWS = pytest.StashKey[list[tuple[object, ...]]]()


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

QUEUE_HEADINGS = ("fault", "tasks", "deliveries", "again", "acknowledged", "dead", "lost", "two holders", "other", "s")
QUEUE_ROWS = pytest.StashKey[list[tuple[object, ...]]]()


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

RULING_FIGURES: Final = {
    "requests": ("requests", "answered"),
    "pulls": ("pulls", "pulled"),
    "receipts": ("receipts", "states"),
    "scheduled messages": ("accepted", "delivered", "expired", "cancelled"),
}
"""By the name of a traffic, the amounts that the table shows of it."""
RULING_ROWS = pytest.StashKey[list[tuple[object, ...]]]()


@pytest.fixture
def ruling_report(request: pytest.FixtureRequest) -> RulingReport:
    """Add a row to the table of requests, pulls, receipts and scheduled messages."""
    began = time.monotonic()
    rows = request.config.stash.setdefault(RULING_ROWS, [])

    def note(fault: str, rulings: Mapping[str, Ruling]) -> None:
        figures = [rulings[name].amounts[each] for name, shown in RULING_FIGURES.items() for each in shown]
        violations = sum(len(each.violations) for each in rulings.values())
        rows.append((fault, *figures, violations, round(time.monotonic() - began)))

    return note


ClientReport = Callable[[str, str, ClientView], None]

CLIENT_HEADINGS = (
    "fault",
    "traffic",
    "acknowledged",
    "lost",
    "repeated",
    "other violations",
    "slowest publish, s",
    "longest pause of a receiver, s",
    "reconnects",
)
CLIENT_ROWS = pytest.StashKey[list[tuple[object, ...]]]()


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the tables, as Markdown, if --faults was given."""
    if config.getoption("--faults"):
        _print(terminalreporter, f"faults (ARTCAFE_TEST_SEED={SEED})", HEADINGS, config.stash.get(ROWS, []))
        _print(terminalreporter, "work queues", QUEUE_HEADINGS, config.stash.get(QUEUE_ROWS, []))
        headings = ("fault", *(each for shown in RULING_FIGURES.values() for each in shown), "violations", "s")
        _print(terminalreporter, "requests, pulls, receipts, scheduled messages", headings, config.stash.get(RULING_ROWS, []))
        _print(terminalreporter, "what clients saw", CLIENT_HEADINGS, config.stash.get(CLIENT_ROWS, []))
        _print(terminalreporter, "faults of the tables", TABLE_HEADINGS, config.stash.get(TABLE_ROWS, []))
        promises = list(config.stash.get(PROMISES, PromiseTable()).rows())
        _print(terminalreporter, "sentences of the contract (docs/contract.md, section 5)", PROMISE_HEADINGS, promises)
        _print(terminalreporter, "self-tests of the checkers", CHECKER_HEADINGS, _self_tests(terminalreporter))


CHECKER_HEADINGS = ("checker", "tests passed", "tests failed")


def _self_tests(reporter: pytest.TerminalReporter) -> list[tuple[object, ...]]:
    """Return how many tests of each checker, most of them of a planted fault, have passed and failed."""
    passed, failed = (
        Counter(each.location[0].rpartition("/test_")[2] for each in reporter.stats.get(outcome, []))
        for outcome in ("passed", "failed")
    )
    checkers = sorted(each for each in passed | failed if each.endswith("checker.py"))
    return [(each, passed[each], failed[each]) for each in checkers]


def _print(reporter: pytest.TerminalReporter, title: str, headings: Sequence[str], rows: list[tuple[object, ...]]) -> None:
    if not rows:
        return
    reporter.section(title)
    reporter.line("| " + " | ".join(headings) + " |")
    reporter.line("| --- |" + " ---: |" * (len(headings) - 1))
    for row in rows:
        reporter.line("| " + " | ".join(map(str, row)) + " |")
