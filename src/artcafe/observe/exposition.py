"""The text format of Prometheus (version 0.0.4) for the cells of one process, or of several that belong together.

https://prometheus.io/docs/instrumenting/exposition_formats/. Counters and histograms are added up over all processes, with what
ended ones have counted, so they do not fall when a process is restarted. Gauges have the label `process`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from artcafe.observe.metric_types import BOUNDS_S, Counter, Gauge, Histogram, Labels
from artcafe.observe.metrics import CELLS, METRICS

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_BOUNDS: Final = (*(f"{bound:.6f}".rstrip("0").rstrip(".") for bound in BOUNDS_S), "+Inf")
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Column(NamedTuple):
    """The cells of one process. `process`: the number of a server process, or 0 for their supervisor."""

    process: int
    values: Sequence[float] | memoryview[float]


def cumulative() -> list[int]:
    """Return the indices of the cells of counters and histograms, which are added up."""
    return [at for metric in METRICS if not isinstance(metric, Gauge) for at in _cells_of(metric)]


def _cells_of(metric: Counter | Histogram) -> Iterator[int]:
    size = len(metric.initial())
    return itertools.chain.from_iterable(range(each.first, each.first + size) for each in metric.series)


def render(columns: Sequence[Column], ended: Mapping[int, float]) -> bytes:
    """Return the metrics of these processes. `ended`: by index, what processes had counted that have ended."""
    tenants = {place: tenant for tenant, place in CELLS.tenants.items()}
    lines: list[str] = []
    for metric in METRICS:
        lines += [f"# HELP {metric.name} {_escaped_help(metric.help)}", f"# TYPE {metric.name} {metric.kind}"]
        series = [(each, _pairs(each, tenants)) for each in metric.series if not each.place or each.place in tenants]
        for each, pairs in series:
            if isinstance(metric, Gauge):
                lines += _gauge_lines(metric, each, pairs, columns)
            elif isinstance(metric, Counter):
                lines.append(f"{metric.name}{_labels(pairs)} {_number(_total(each.first, columns, ended))}")
            else:
                lines += _histogram_lines(metric, each, pairs, columns, ended)
    lines.append("")
    return "\n".join(lines).encode()


def _pairs(series: Labels, tenants: Mapping[int, str]) -> tuple[tuple[str, str], ...]:
    return (*series.pairs, ("tenant", tenants[series.place])) if series.place else series.pairs


def _total(at: int, columns: Sequence[Column], ended: Mapping[int, float]) -> float:
    return sum([column.values[at] for column in columns], ended.get(at, 0.0))


def _gauge_lines(gauge: Gauge, series: Labels, pairs: tuple[tuple[str, str], ...], columns: Sequence[Column]) -> Iterator[str]:
    found: dict[int, float] = {}
    for column in columns:
        value, process = column.values[series.first], column.process if gauge.by_process else 0
        if not math.isnan(value):
            earlier = found.get(process)
            found[process] = value if earlier is None else max(earlier, value) if gauge.is_shared else earlier + value
    for process, value in sorted(found.items()):
        yield f"{gauge.name}{_labels((*pairs, ('process', str(process))) if gauge.by_process else pairs)} {_number(value)}"


def _histogram_lines(
    histogram: Histogram,
    series: Labels,
    pairs: tuple[tuple[str, str], ...],
    columns: Sequence[Column],
    ended: Mapping[int, float],
) -> Iterator[str]:
    """Yield the buckets, the sum and the count. A series with labels appears with its first value: most tables are rarely
    used."""
    first, end = series.first, series.first + len(_BOUNDS)
    counts = [_total(at, columns, ended) for at in range(first, end)]
    if pairs and not any(counts):
        return
    for bound, count in zip(_BOUNDS, itertools.accumulate(counts), strict=True):
        yield f"{histogram.name}_bucket{_labels((*pairs, ('le', bound)))} {_number(count)}"
    yield f"{histogram.name}_sum{_labels(pairs)} {_number(_total(end, columns, ended))}"
    yield f"{histogram.name}_count{_labels(pairs)} {_number(sum(counts))}"


@lru_cache(maxsize=4096)
def _labels(pairs: tuple[tuple[str, str], ...]) -> str:
    return "{" + ",".join([f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs]) + "}" if pairs else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _escaped_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
