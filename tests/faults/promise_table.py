"""The table of the contract's sentences at the end of `make faults`: their tests, and what the faults of this run showed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.promises import clauses, marked_tests

PROMISE_HEADINGS: Final = ("sentence", "tests", "faults", "runs", "publishes", "deliveries", "violations")


@dataclass
class _Shown:
    """What the runs of one sentence's tests showed."""

    faults: set[str] = field(default_factory=set)
    runs: int = 0
    publishes: int = 0
    deliveries: int = 0
    violations: int = 0


class PromiseTable:
    """The runs of this session, by sentence. A run whose test is marked with several clauses of a sentence counts once."""

    def __init__(self) -> None:
        self._shown: dict[str, _Shown] = {}
        self.runs: list[tuple[list[str], str, int, int, int]] = []
        """The arguments of each `add`."""

    def add(self, ids: Iterable[str], fault: str, publishes: int, deliveries: int, violations: int) -> None:
        """Count a run of a test that is marked with these clauses."""
        self.runs.append((list(ids), fault, publishes, deliveries, violations))
        for sentence in {_sentence_of(id) for id in self.runs[-1][0]}:
            shown = self._shown.setdefault(sentence, _Shown())
            shown.faults.add(fault)
            shown.runs += 1
            shown.publishes += publishes
            shown.deliveries += deliveries
            shown.violations += violations

    def rows(self) -> Iterator[Sequence[str | int]]:
        """Yield a row for each sentence; zeros where no test of this session has injected a fault. Nothing without a run."""
        tests: dict[str, set[str]] = {}
        for id, marked in marked_tests().items():
            tests.setdefault(_sentence_of(id), set()).update(marked)
        for sentence in dict.fromkeys(map(_sentence_of, clauses()) if self._shown else ()):
            shown = self._shown.get(sentence, _Shown())
            figures = (shown.runs, shown.publishes, shown.deliveries, shown.violations)
            yield (sentence, len(tests.get(sentence, ())), len(shown.faults), *figures)


def _sentence_of(id: str) -> str:
    """Return the sentence that a clause belongs to: the number of one of the twelve, otherwise the id itself."""
    number = re.match(r"\d+", id)
    return id if number is None else number[0]
