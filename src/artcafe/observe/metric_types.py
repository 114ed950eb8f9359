"""Types of metrics: counters, gauges and histograms, whose values are cells of one array of floats.

The declarations are in `observe.metrics`, the text format in `observe.exposition`. A metric's labels have a closed set of values,
so the number of series is known when it is declared, and a peer cannot add one. The array is this process's own, or memory shared
with a supervisor, which then reads the values also after a `kill -9`. An update takes 0.1 to 0.3 µs; the libraries for Prometheus
take ten times that, since theirs lock (decision record 43).
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

BOUNDS_S: Final = tuple(0.000125 * 2**power for power in range(18))
"""Upper bounds of the buckets of every histogram: 0.125 ms to 16.4 s, each twice the one before."""
_SUM: Final = len(BOUNDS_S) + 1
"""Offset of the sum of a histogram's values, after the buckets and the one without a bound."""
HISTOGRAM_CELLS: Final = _SUM + 1

MAX_TENANTS: Final = 20
"""Tenants that can be named in labels. Their series are reserved from the start, so that the layout of the array is constant."""
OTHER: Final = "other"
"""Replaces a label's value that was not declared, in metrics that declare this one."""


class Cells:
    """The array of floats."""

    __slots__ = ("tenants", "values")

    def __init__(self) -> None:
        self.values: memoryview[float] = memoryview(bytearray()).cast("d")
        self.tenants: dict[str, int] = {}
        """The place of each tenant named in labels, from 1 on. All others have place 0, and no label."""

    def reserve(self, initial: Sequence[float]) -> int:
        """Append cells with these values, and return the index of the first."""
        first = len(self.values)
        grown = memoryview(bytearray(8 * (first + len(initial)))).cast("d")
        for at, value in enumerate([*self.values, *initial]):
            grown[at] = value
        self.values = grown
        return first

    def move_to(self, shared: memoryview[float]) -> None:
        """Continue in other memory, as long as this and all zero. It gets the values so far."""
        for at, value in enumerate(self.values):
            shared[at] = value
        self.values = shared

    def name_tenants(self, tenants: Sequence[str]) -> None:
        """Give these tenants series of their own. Raises ValueError for more than `MAX_TENANTS`."""
        if len(tenants) > MAX_TENANTS:
            raise ValueError(f"{len(tenants)} tenants are named; at most {MAX_TENANTS} can be")
        self.tenants = {tenant: place for place, tenant in enumerate(dict.fromkeys(tenants), 1)}


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of one series, and the index of its first cell. `place`: of its tenant (`Cells.tenants`)."""

    pairs: tuple[tuple[str, str], ...]
    place: int
    first: int


class _Cell:
    """One series of one cell."""

    __slots__ = ("_at", "_cells")

    def __init__(self, cells: Cells, first: int) -> None:
        self._cells, self._at = cells, first

    @property
    def value(self) -> float:
        """The value in this process."""
        return float(self._cells.values[self._at])


class CounterCell(_Cell):
    """One series of a counter."""

    __slots__ = ()

    def add(self, amount: float = 1) -> None:
        """Count `amount` more."""
        self._cells.values[self._at] += amount


class GaugeCell(_Cell):
    """One series of a gauge. A gauge that was never set is not exposed."""

    __slots__ = ()

    def set(self, value: float) -> None:
        """Replace the value."""
        self._cells.values[self._at] = value


class HistogramCells:
    """One series of a histogram of seconds."""

    __slots__ = ("_cells", "_first")

    def __init__(self, cells: Cells, first: int) -> None:
        self._cells, self._first = cells, first

    def observe(self, seconds: float, count: int = 1) -> None:
        """Count a value, `count` times. A negative one, by a clock that was set back, counts as 0."""
        values, first = self._cells.values, self._first
        values[first + bisect_right(BOUNDS_S, seconds)] += count
        if seconds > 0:
            values[first + _SUM] += seconds * count

    def observe_all(self, seconds: list[float]) -> None:
        """Count values of one moment, none of them negative: 0.1 µs each, since only occupied buckets are visited. Sorts the
        list."""
        values, first, start = self._cells.values, self._first, 0
        seconds.sort()
        while start < len(seconds):
            bucket = bisect_right(BOUNDS_S, seconds[start])
            end = bisect_left(seconds, BOUNDS_S[bucket], start) if bucket < len(BOUNDS_S) else len(seconds)
            values[first + bucket] += end - start
            start = end
        values[first + _SUM] += sum(seconds)

    @property
    def count(self) -> int:
        """The number of values counted in this process."""
        return int(sum(self._cells.values[self._first : self._first + _SUM]))


Child = TypeVar("Child", CounterCell, GaugeCell, HistogramCells)


@dataclass(eq=False)
class Metric(Generic[Child]):
    """A family of series. `labels` names each label with all its values.

    With `by_tenant`, the series of a named tenant carry its id in a further label, `tenant`.
    """

    cells: Cells
    name: str
    help: str
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    by_tenant: bool = False

    def __post_init__(self) -> None:
        combinations = list(itertools.product(*self.labels.values()))
        places = MAX_TENANTS + 1 if self.by_tenant else 1
        self.series: list[Labels] = []
        self._by_labels: dict[tuple[tuple[str, ...], int], Child] = {}
        for place, values in itertools.product(range(places), combinations):
            first = self.cells.reserve(self.initial())
            self.series.append(Labels(tuple(zip(self.labels, values, strict=True)), place, first))
            self._by_labels[values, place] = self._child(first)

    def of(self, *values: str, tenant: str | None = None) -> Child:
        """Return the series of these label values; of the value `other` in place of one that was not declared, if that was."""
        place = self.cells.tenants.get(tenant, 0) if tenant is not None and self.by_tenant else 0
        found = self._by_labels.get((values, place))
        if found is None:
            known = zip(values, self.labels.values(), strict=True)
            return self._by_labels[tuple(value if value in each else OTHER for value, each in known), place]
        return found

    def initial(self) -> Sequence[float]:
        """Return the first values of the cells of one series."""
        raise NotImplementedError

    def _child(self, first: int) -> Child:
        raise NotImplementedError


class Counter(Metric[CounterCell]):
    """A metric that only rises. Its name ends in `_total`. The values of several processes are added up, those of ended ones
    included."""

    kind: Final = "counter"

    def initial(self) -> Sequence[float]:
        return (0.0,)

    def _child(self, first: int) -> CounterCell:
        return CounterCell(self.cells, first)


@dataclass(eq=False)
class Gauge(Metric[GaugeCell]):
    """A metric that rises and falls. Each process has its own series, with the label `process`; without `by_process`, there is
    one for all.

    Series that fall together (two processes of one number during a restart, or all of them) are added up, or with `is_shared`,
    which is for facts that each process sees, replaced by the highest.
    """

    by_process: bool = True
    is_shared: bool = False
    kind: Final = "gauge"

    def initial(self) -> Sequence[float]:
        return (math.nan,)

    def _child(self, first: int) -> GaugeCell:
        return GaugeCell(self.cells, first)


class Histogram(Metric[HistogramCells]):
    """A distribution of seconds. The values of several processes are added up, those of ended ones included."""

    kind: Final = "histogram"

    def initial(self) -> Sequence[float]:
        return (0.0,) * HISTOGRAM_CELLS

    def _child(self, first: int) -> HistogramCells:
        return HistogramCells(self.cells, first)


AnyMetric = Counter | Gauge | Histogram
