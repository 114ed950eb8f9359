"""Shared memory for the limits of a group, and the assignment of its columns to processes."""

from __future__ import annotations

import mmap
import os
import secrets
import tempfile

from artcafe.rules.shared_limits import SALT_BYTES, clear_column, size_bytes, write_salt


class SharedLimits:
    """Anonymous memory with a descriptor, mapped by every process of the group. The kernel frees it with the last one."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.descriptor = _anonymous_file()
        size = size_bytes(columns)
        os.truncate(self.descriptor, size)
        self._map = mmap.mmap(self.descriptor, size)
        self._memory = memoryview(self._map)
        write_salt(self._memory, secrets.token_bytes(SALT_BYTES))
        self._free = list(range(columns))

    def take_column(self) -> int:
        """Return an unused column, all zero."""
        return self._free.pop()

    def free_column(self, column: int) -> None:
        """Clear and reuse the column of an ended process."""
        clear_column(self._memory, column)
        self._free.append(column)

    def close(self) -> None:
        """Unmap the memory."""
        self._memory.release()
        self._map.close()
        os.close(self.descriptor)


def _anonymous_file() -> int:
    """Return the descriptor of a file without a name: of memory, or on disk where the system has no such files (macOS)."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("artcafe-limits")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
