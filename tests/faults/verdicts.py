"""The result of a checker: the promises that a run violated, and how much of it was checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Violation:
    """A violated promise, and where."""

    broken: StrEnum
    what: str

    def __str__(self) -> str:
        return f"{self.what}: {self.broken}"


@dataclass(frozen=True)
class Ruling:
    """The violations found in a run, and its amounts by name (`requests`, `answers`, …)."""

    amounts: Mapping[str, int]
    violations: Sequence[Violation]

    @property
    def counts(self) -> Counter[StrEnum]:
        return Counter(each.broken for each in self.violations)

    def __str__(self) -> str:
        shown = "\n".join(map(str, self.violations[:20]))
        return f"{len(self.violations)} broken promises among {dict(self.amounts)} ({dict(self.counts)})\n{shown}"
