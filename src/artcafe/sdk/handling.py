"""The message that the current task handles, as the cause of what it publishes meanwhile.

It is a context variable: a task that the handler starts inherits it, and keeps it when the loop goes on to its next message.
Nested loops form a linked list of immutable entries, so that the end of the inner loop brings back the message of the outer one.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import Enum, auto
from typing import Final, NamedTuple

from artcafe.sdk.messages import Message
from artcafe.sdk.records import KeptMessage
from artcafe.wire import frames


class Handled(Enum):
    """Marks a missing argument, where None is a value."""

    MESSAGE = auto()


HANDLED: Final = Handled.MESSAGE
"""The message that the caller's task handles, if any."""

CausedBy = Message | KeptMessage | str | Handled | None
"""The message that a publish answers: a message, its id, the one that is handled, or none."""


class _Entry(NamedTuple):
    """A message, the tenant and the loop that it came from, and the entry of the loop around that one."""

    message: Message
    tenant: str
    loop: object
    outer: _Entry | None


_handled: ContextVar[_Entry | None] = ContextVar("artcafe_handled", default=None)


def begin(message: Message, tenant: str, loop: object) -> None:
    """Note that the current task handles a message. `loop` identifies the loop that yielded it."""
    _handled.set(_Entry(message, tenant, loop, _without(_handled.get(), loop)))


def end(loop: object) -> None:
    """Note that the current task no longer handles a message of this loop. May be repeated."""
    entry = _handled.get()
    if entry is not None:
        _handled.set(_without(entry, loop))


def _without(entry: _Entry | None, loop: object) -> _Entry | None:
    if entry is None:
        return None
    if entry.loop is loop:
        return entry.outer
    return entry._replace(outer=_without(entry.outer, loop))


def handled_in(tenant: str) -> Message | None:
    """Return the message that the current task handles, if it is one of this tenant."""
    entry = _handled.get()
    return entry.message if entry is not None and entry.tenant == tenant else None


def cause_of(message: Message | KeptMessage | str) -> frames.CausedBy:
    """Return a message in the form of a `publish` command: a stored one by its place, so that the server finds it at once."""
    if isinstance(message, str):
        return message
    return message.message_id if message.seq is None else frames.Cause(message.channel_id, message.seq, message.message_id)
