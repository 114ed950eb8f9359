"""The tables of the results of fault tests, of one process or merged from several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from tests.faults.promise_table import PROMISE_HEADINGS, PromiseTable

TABLES_FILE: Final = "ARTCAFE_FAULT_TABLES"
"""The variable with the file into which a process writes its tables instead of printing them."""

Row = Sequence[str | int]

RULING_FIGURES: Final = {
    "requests": ("requests", "answered"),
    "pulls": ("pulls", "pulled"),
    "receipts": ("receipts", "states"),
    "scheduled messages": ("accepted", "delivered", "expired", "cancelled"),
}
"""By the name of a traffic, the amounts that the table shows of it."""

HEADINGS: Final[Mapping[str, Row]] = {
    "broadcast channels": (
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
    ),
    "work queues": ("fault", "tasks", "deliveries", "again", "acknowledged", "dead", "lost", "two holders", "other", "s"),
    "requests, pulls, receipts, scheduled messages": (
        "fault",
        *(each for shown in RULING_FIGURES.values() for each in shown),
        "violations",
        "s",
    ),
    "what clients saw": (
        "fault",
        "traffic",
        "acknowledged",
        "lost",
        "repeated",
        "other violations",
        "slowest publish, s",
        "longest pause of a receiver, s",
        "reconnects",
    ),
    "faults of the tables": (
        "fault",
        "writes and reads",
        "calls",
        "failed",
        "answered",
        "refused",
        "unknown",
        "lost",
        "doubled",
        "s",
    ),
}
"""By the title of each table."""
CHECKER_HEADINGS: Final = ("checker", "tests passed", "tests failed")


class _Encoded(msgspec.Struct):
    rows: dict[str, list[list[str | int]]]
    runs: list[tuple[list[str], str, int, int, int]]
    self_tests: list[tuple[str, int, int]]


@dataclass
class FaultTables:
    """The rows of each table, the runs of the contract's sentences, and the self-tests of the checkers."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {title: [] for title in HEADINGS})
    promises: PromiseTable = field(default_factory=PromiseTable)
    self_tests: list[Row] = field(default_factory=list)

    def encoded(self) -> bytes:
        """Return the tables for `add`."""
        return msgspec.json.encode({"rows": self.rows, "runs": self.promises.runs, "self_tests": self.self_tests})

    def add(self, encoded: bytes) -> None:
        """Add the tables of another process."""
        other = msgspec.json.decode(encoded, type=_Encoded)
        for title, rows in other.rows.items():
            self.rows[title] += rows
        for ids, fault, publishes, deliveries, violations in other.runs:
            self.promises.add(ids, fault, publishes, deliveries, violations)
        self.self_tests += other.self_tests

    def text(self, seed: int) -> str:
        """Return the tables that have rows, as Markdown."""
        lines = [f"ARTCAFE_TEST_SEED={seed}"]
        for title, headings in HEADINGS.items():
            lines += _table(title, headings, self.rows[title])
        lines += _table("sentences of the contract", PROMISE_HEADINGS, list(self.promises.rows()))
        lines += _table("self-tests of the checkers", CHECKER_HEADINGS, self._merged_self_tests())
        return "\n".join(lines)

    def _merged_self_tests(self) -> list[Row]:
        passed, failed = Counter[str](), Counter[str]()
        for checker, passes, failures in self.self_tests:
            passed[str(checker)] += int(passes)
            failed[str(checker)] += int(failures)
        return [(each, passed[each], failed[each]) for each in sorted(passed | failed)]


def _table(title: str, headings: Row, rows: Sequence[Row]) -> Iterator[str]:
    if rows:
        yield from ("", f"## {title}", "", _line(headings), "| --- |" + " ---: |" * (len(headings) - 1), *map(_line, rows))


def _line(row: Row) -> str:
    return f"| {' | '.join(map(str, row))} |"
