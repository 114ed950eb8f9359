"""Choose where to plant a fault in a history."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import assume

T = TypeVar("T")
Kind = TypeVar("Kind")


def pick(chance: random.Random, choices: Sequence[T]) -> T:
    """Return one of the choices. Hypothesis skips an example that has none."""
    assume(choices)
    return chance.choice(choices)


def some(
    chance: random.Random, events: Sequence[object], kind: type[Kind], suits: Callable[[Kind], bool] = lambda _: True
) -> tuple[int, Kind]:
    """Return one of the events of a kind, with its place."""
    return pick(chance, [(at, event) for at, event in enumerate(events) if isinstance(event, kind) and suits(event)])


def with_events(events: Sequence[T], at: int, *more: T) -> list[T]:
    """Return the events with further ones after a place."""
    return [*events[: at + 1], *more, *events[at + 1 :]]


def with_event(events: Sequence[T], at: int, other: T) -> list[T]:
    """Return the events with another one at a place."""
    return [*events[:at], other, *events[at + 1 :]]


def without(events: Sequence[T], goes: Callable[[T], bool]) -> list[T]:
    """Return the events that do not go."""
    return [event for event in events if not goes(event)]
