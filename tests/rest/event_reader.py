"""A reader of server-sent events for tests, by the rules of the HTML standard, on httpx2."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

READ_S = 30.0


@dataclass
class ReadEvent:
    """One event, with its data parsed."""

    name: str = "message"
    id: str | None = None
    lines: list[str] = field(default_factory=list)

    @property
    def data(self) -> Any:
        """The parsed data."""
        return json.loads("\n".join(self.lines))


class EventReader:
    """An open stream of events."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.last_id: str | None = None
        self._lines = response.iter_lines()

    def next(self) -> ReadEvent:
        """Return the next event. Raises `StopIteration` at the end of the stream, and `httpx2.ReadTimeout`."""
        event = ReadEvent()
        while line := next(self._lines):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match name:
                case "event":
                    event.name = value
                case "id":
                    event.id = self.last_id = value
                case "data":
                    event.lines.append(value)
        return event if event.lines else self.next()

    def comment(self) -> str:
        """Return the next comment, before any event."""
        while not (line := next(self._lines)):
            pass
        assert line.startswith(": "), line
        return line.removeprefix(": ")

    def events(self, count: int) -> list[ReadEvent]:
        """Return the next events."""
        return [self.next() for _ in range(count)]

    def messages(self, count: int) -> list[Any]:
        """Return the data of the next events, which are messages."""
        found = self.events(count)
        assert [each.name for each in found] == ["message"] * count, found
        return [each.data["data"] for each in found]

    def end(self) -> dict[str, Any]:
        """Return the data of the next event, which is the last one."""
        last = self.next()
        assert last.name == "end", last
        assert list(self._lines) == []
        return dict(last.data)


@contextmanager
def reading(caller: httpx2.Client, path: str, last_id: str | None = None, **query: int) -> Iterator[EventReader]:
    """Open a stream, and read its first event."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    with caller.stream("GET", path, params=query, headers=headers, timeout=READ_S) as response:
        assert response.status_code == 200, response.read()
        reader = EventReader(response)
        assert reader.next().name == "start"
        yield reader


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    until = time.monotonic() + READ_S
    while not condition():
        assert time.monotonic() < until
        threading.Event().wait(0.01)
