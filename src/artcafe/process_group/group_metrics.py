"""The metrics of a process group: each process counts in a column of shared memory, and the supervisor adds them up.

What a process has counted stays, also after `kill -9`: the supervisor keeps the counters of ended processes.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from artcafe.observe import metrics
from artcafe.observe.exposition import Column, cumulative, render

_HEAD: Final = 1
"""Cells before the metrics: 1.0 once a process counts in its column."""
_WIDTH: Final = _HEAD + len(metrics.CELLS.values)
COLUMN_BYTES: Final = 8 * _WIDTH


def count_in_column(memory: memoryview, column: int, layout: int) -> bool:
    """Count in this column of the group's memory from now on. Return False, and count alone, if it has another layout.

    `layout`: the supervisor's `metrics.LAYOUT`. A process of another version, after a rolling restart, has metrics of its own.
    """
    if layout != metrics.LAYOUT:
        return False
    cells = _column(memory, column)
    metrics.CELLS.move_to(cells[_HEAD:])
    cells[0] = 1.0
    return True


def _column(memory: memoryview, column: int) -> memoryview[float]:
    return memory[column * COLUMN_BYTES :][:COLUMN_BYTES].cast("d")


class GroupMetrics:
    """The supervisor's view of the columns."""

    def __init__(self, memory: memoryview) -> None:
        """`memory` has `COLUMN_BYTES` for each column, all zero."""
        self._memory = memory
        self._processes: dict[int, int] = {}
        """The number of the process of each column in use."""
        self._cumulative = cumulative()
        self._ended: defaultdict[int, float] = defaultdict(float)

    def assign(self, column: int, process: int) -> None:
        """Note the number of the process that counts in a column."""
        self._processes[column] = process

    def free(self, column: int) -> None:
        """Keep what an ended process has counted, and clear its column."""
        self._processes.pop(column, None)
        with _column(self._memory, column) as cells:
            for at in self._cumulative:
                if value := cells[_HEAD + at]:
                    self._ended[at] += value
        self._memory[column * COLUMN_BYTES :][:COLUMN_BYTES] = bytes(COLUMN_BYTES)

    def text(self) -> bytes:
        """Return the metrics of the supervisor (process 0) and of all processes."""
        columns = [Column(0, metrics.CELLS.values)]
        for column, process in self._processes.items():
            with _column(self._memory, column) as cells:
                if cells[0]:
                    columns.append(Column(process, cells[_HEAD:].tolist()))
        return render(columns, self._ended)
