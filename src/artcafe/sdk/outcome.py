"""The exception of a call to a function of the program, kept instead of raised."""

from __future__ import annotations

from types import TracebackType


class Outcome:
    """A context manager that keeps the exception of its block. Cancellation is no `Exception`, so it is raised."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> None:
        """Nothing is needed to begin."""

    def __exit__(self, _: type[BaseException] | None, exc: BaseException | None, __: TracebackType | None) -> bool:
        """Suppress an exception."""
        self.error = exc if isinstance(exc, Exception) else None
        return self.error is not None
