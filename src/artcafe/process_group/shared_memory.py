"""Shared memory for the limits and metrics of a group, and the assignment of its columns to processes."""

from __future__ import annotations

import mmap
import os
import secrets
import tempfile

from artcafe.process_group.group_metrics import COLUMN_BYTES, GroupMetrics
from artcafe.rules.shared_limits import SALT_BYTES, clear_column, size_bytes, write_salt


class SharedMemory:
    """Anonymous memory with a descriptor, mapped by every process of the group. The kernel frees it with the last one."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.descriptor = _anonymous_file()
        limits = size_bytes(columns)
        size = limits + columns * COLUMN_BYTES
        os.truncate(self.descriptor, size)
        self._map = mmap.mmap(self.descriptor, size)
        self._memory = memoryview(self._map)
        write_salt(self._memory, secrets.token_bytes(SALT_BYTES))
        self._free = list(range(columns))
        self._metrics_memory = self._memory[limits:]
        self.metrics = GroupMetrics(self._metrics_memory)

    def take_column(self, process: int) -> int:
        """Return an unused column, all zero, for a process of this number."""
        column = self._free.pop()
        self.metrics.assign(column, process)
        return column

    def free_column(self, column: int) -> None:
        """Clear and reuse the column of an ended process."""
        clear_column(self._memory, column)
        self.metrics.free(column)
        self._free.append(column)

    def close(self) -> None:
        """Unmap the memory."""
        self._metrics_memory.release()
        self._memory.release()
        self._map.close()
        os.close(self.descriptor)


def _anonymous_file() -> int:
    """Return the descriptor of a file without a name: of memory, or on disk where the system has no such files (macOS)."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("artcafe-group")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
