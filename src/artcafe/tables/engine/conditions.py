"""Conditions for writes and queries: small frozen objects, compiled by the DynamoDB adapter and evaluated by SQLite's.

The semantics are exactly DynamoDB's. Comparing a missing attribute, or an attribute of another type, is false, so `NotEquals` is
true for it. Text and bytes compare byte by byte, numbers by value. NULL is a value and exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from artcafe.tables.engine.values import Value, ValueKind, check_name, kind_of, normal

Path: TypeAlias = str | tuple[str, str]
"""An attribute name, or the name of a map attribute and of one entry in it."""

# DynamoDB limits an expression to 4 KB; 25 tests and 25 changes of the longest form, with names replaced by #0…, stay below that.
MAX_TESTS = 25

_ORDERED = (ValueKind.STRING, ValueKind.NUMBER, ValueKind.BINARY)


def text_of(path: Path) -> str:
    """Return the path as error messages show it."""
    return path if isinstance(path, str) else f"{path[0]}.{path[1]}"


def attribute_of(path: Path) -> str:
    """Return the attribute of a path."""
    return path if isinstance(path, str) else path[0]


def level_of(path: Path) -> int:
    """Return the nesting level of a value at `path`; the item itself is level 1."""
    return 2 if isinstance(path, str) else 3


@dataclass(frozen=True, slots=True)
class Exists:
    path: Path


@dataclass(frozen=True, slots=True)
class Absent:
    path: Path


@dataclass(frozen=True, slots=True)
class OfKind:
    """True if the attribute exists and has this type."""

    path: Path
    kind: ValueKind


@dataclass(frozen=True, slots=True)
class FewerThan:
    """True if the attribute is a map with fewer entries than this."""

    path: Path
    number: int


@dataclass(frozen=True, slots=True)
class _Test:
    """A path and a value to compare with. Converts the value to normal form; raises the errors of `values.normal`."""

    path: Path
    value: Value

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", normal(self.value, text_of(self.path)))


@dataclass(frozen=True, slots=True)
class Equals(_Test):
    """True for the same type and an equal value; lists compare in order, maps and sets in any order."""


@dataclass(frozen=True, slots=True)
class NotEquals(_Test):
    """The negation of `Equals`: also true for a missing attribute."""


@dataclass(frozen=True, slots=True)
class Contains(_Test):
    """True if the text contains this part, or the list or set contains this member.

    Raises TypeError for bytes: DynamoDB supports them, but its emulators used in the tests handle them wrongly.
    """

    def __post_init__(self) -> None:
        # Plain super() fails here: a dataclass with slots is a copy of the class it was defined in.
        _Test.__post_init__(self)
        if isinstance(self.value, bytes):
            raise TypeError(f"{text_of(self.path)}: bytes cannot be searched for")


@dataclass(frozen=True, slots=True)
class _Order(_Test):
    """A comparison by order. Raises TypeError for any value except text, numbers and bytes, the types DynamoDB can order."""

    def __post_init__(self) -> None:
        _Test.__post_init__(self)
        if kind_of(self.value) not in _ORDERED:
            raise TypeError(f"{text_of(self.path)}: only text, numbers and bytes have an order")


@dataclass(frozen=True, slots=True)
class Less(_Order):
    pass


@dataclass(frozen=True, slots=True)
class LessOrEqual(_Order):
    pass


@dataclass(frozen=True, slots=True)
class Greater(_Order):
    pass


@dataclass(frozen=True, slots=True)
class GreaterOrEqual(_Order):
    pass


@dataclass(frozen=True, slots=True, init=False)
class _Several:
    conditions: tuple[Condition, ...]

    def __init__(self, *conditions: Condition) -> None:
        if not conditions:
            raise ValueError(f"{type(self).__name__} needs at least one condition")
        object.__setattr__(self, "conditions", conditions)


@dataclass(frozen=True, slots=True, init=False)
class And(_Several):
    pass


@dataclass(frozen=True, slots=True, init=False)
class Or(_Several):
    pass


@dataclass(frozen=True, slots=True)
class Not:
    condition: Condition


Condition: TypeAlias = (
    Exists
    | Absent
    | OfKind
    | FewerThan
    | Equals
    | NotEquals
    | Contains
    | Less
    | LessOrEqual
    | Greater
    | GreaterOrEqual
    | And
    | Or
    | Not
)


def paths_in(condition: Condition | None) -> list[Path]:
    """Return the path of every test in the condition, in order."""
    match condition:
        case None:
            return []
        case And(conditions) | Or(conditions):
            return [path for each in conditions for path in paths_in(each)]
        case Not(inner):
            return paths_in(inner)
        case _:
            return [condition.path]


def check_condition(condition: Condition | None) -> None:
    """Raise ValueError for more tests than fit into a DynamoDB expression, or for an invalid path."""
    paths = paths_in(condition)
    if len(paths) > MAX_TESTS:
        raise ValueError(f"a condition of {len(paths)} tests; it may have {MAX_TESTS}")
    for path in paths:
        check_path(path)


def check_path(path: Path) -> None:
    """Check every name in a path; raises the errors of `values.check_name`."""
    for name in (path,) if isinstance(path, str) else path:
        check_name(name, text_of(path))
