"""The conditions a write or a query can carry: small frozen objects that DynamoDB's adapter compiles and SQLite's evaluates.

They mean exactly what DynamoDB means. A comparison with an attribute that is missing or of another type is false, and so
`NotEquals` is true of it; text and bytes compare byte by byte, numbers by value; NULL is a value, and exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from artcafe.tables.engine.values import Value, ValueKind, check_name, kind_of, normal

Path: TypeAlias = str | tuple[str, str]
"""An attribute's name, or an attribute that is a map and the name of one entry in it."""

# DynamoDB takes expressions of up to 4 KB; 25 tests and 25 changes of the longest form, names replaced by #0…, stay below it.
MOST_TESTS = 25

_ORDERED = (ValueKind.STRING, ValueKind.NUMBER, ValueKind.BINARY)


def text_of(path: Path) -> str:
    """The path as an error names it."""
    return path if isinstance(path, str) else f"{path[0]}.{path[1]}"


def attribute_of(path: Path) -> str:
    """The attribute that a path is, or lies in."""
    return path if isinstance(path, str) else path[0]


def level_of(path: Path) -> int:
    """How deep a value at `path` is nested, the item being level 1."""
    return 2 if isinstance(path, str) else 3


@dataclass(frozen=True, slots=True)
class Exists:
    path: Path


@dataclass(frozen=True, slots=True)
class Absent:
    path: Path


@dataclass(frozen=True, slots=True)
class OfKind:
    """Is there, and of this type."""

    path: Path
    kind: ValueKind


@dataclass(frozen=True, slots=True)
class _Test:
    """A path beside a value, which is kept in normal form; raises as `values.normal` does."""

    path: Path
    value: Value

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", normal(self.value, text_of(self.path)))


@dataclass(frozen=True, slots=True)
class Equals(_Test):
    """Of the same type and equal; lists in order, maps and sets whatever the order."""


@dataclass(frozen=True, slots=True)
class NotEquals(_Test):
    """The opposite of `Equals`: true also where the attribute is missing."""


@dataclass(frozen=True, slots=True)
class Contains(_Test):
    """The text at the path holds this part, or the list or set holds this member.

    Raises TypeError for bytes: DynamoDB searches them, and the engines that stand in for it in tests do it wrongly.
    """

    def __post_init__(self) -> None:
        # Plain super() does not find its class here: a dataclass with slots is a copy of the class it was written in.
        _Test.__post_init__(self)
        if isinstance(self.value, bytes):
            raise TypeError(f"{text_of(self.path)}: bytes are not searched for")


@dataclass(frozen=True, slots=True)
class _Order(_Test):
    """Raises TypeError for a value that has no order: DynamoDB orders text, numbers and bytes."""

    def __post_init__(self) -> None:
        _Test.__post_init__(self)
        if kind_of(self.value) not in _ORDERED:
            raise TypeError(f"{text_of(self.path)}: only text, numbers and bytes are compared by order")


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
    Exists | Absent | OfKind | Equals | NotEquals | Contains | Less | LessOrEqual | Greater | GreaterOrEqual | And | Or | Not
)


def paths_in(condition: Condition | None) -> list[Path]:
    """The path of every single test, in order."""
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
    """Raises ValueError for more tests than an expression of DynamoDB has room for, or for a path that cannot be."""
    paths = paths_in(condition)
    if len(paths) > MOST_TESTS:
        raise ValueError(f"a condition of {len(paths)} tests; it may have {MOST_TESTS}")
    for path in paths:
        check_path(path)


def check_path(path: Path) -> None:
    """Raises as `values.check_name` does."""
    for name in (path,) if isinstance(path, str) else path:
        check_name(name, text_of(path))
