"""The memory in which the processes of a group count their limits together, and who has which column of it."""

from __future__ import annotations

import mmap
import os
import secrets
import tempfile

from artcafe.rules.shared_limits import SALT_BYTES, clear_column, size_bytes, write_salt


class SharedLimits:
    """Anonymous memory with a descriptor, which every process of the group maps. It ends with the last of them."""

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
        """Return a column that no process has. It counts nothing yet."""
        return self._free.pop()

    def free_column(self, column: int) -> None:
        """Take a column back from a process that has ended, with everything it counted."""
        clear_column(self._memory, column)
        self._free.append(column)

    def close(self) -> None:
        """Give the memory back."""
        self._memory.release()
        self._map.close()
        os.close(self.descriptor)


def _anonymous_file() -> int:
    """Return the descriptor of a file without a name: of memory, or on disk where the system has no such files (macOS)."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("artcafe-limits")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
