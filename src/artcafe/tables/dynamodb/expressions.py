"""Compile conditions and changes to DynamoDB expressions, with a placeholder for every name and value.

So no name can be a reserved word, and no value is parsed as part of an expression. `conditions` defines their meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, assert_never

from artcafe.tables.dynamodb.values import Attribute, to_attribute
from artcafe.tables.engine.conditions import (
    Absent,
    And,
    Condition,
    Contains,
    Equals,
    Exists,
    FewerThan,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Not,
    NotEquals,
    OfKind,
    Or,
    Path,
)
from artcafe.tables.engine.values import ValueKind
from artcafe.tables.engine.writes import Add, Assign, AssignIfAbsent, Change, Remove

_OPERATORS: Final = {Equals: "=", NotEquals: "<>", Less: "<", LessOrEqual: "<=", Greater: ">", GreaterOrEqual: ">="}


class _Binding(IntEnum):
    """The precedence of an expression's outermost operator. DynamoDB refuses redundant parentheses."""

    OR = 1
    AND = 2
    NOT = 3
    TEST = 4


class Expressions:
    """The names and values of one request, collected while its expressions are compiled."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, Attribute] = {}

    def parameters(self) -> dict[str, Any]:
        """Return the request parameters for names and values; DynamoDB refuses empty ones."""
        given: dict[str, Any] = {}
        if self._names:
            given["ExpressionAttributeNames"] = {placeholder: name for name, placeholder in self._names.items()}
        if self._values:
            given["ExpressionAttributeValues"] = self._values
        return given

    def name(self, name: str) -> str:
        """Return the placeholder of an attribute or map entry name."""
        return self._names.setdefault(name, f"#{len(self._names)}")

    def value(self, attribute: Attribute) -> str:
        """Return a placeholder of the value."""
        placeholder = f":{len(self._values)}"
        self._values[placeholder] = attribute
        return placeholder

    def condition(self, condition: Condition) -> str:
        """Return a condition or filter expression."""
        return self._condition(condition)[0]

    def changes(self, changes: Sequence[Change]) -> str:
        """Return an update expression.

        Its right-hand sides see the item before the update, so the order of changes does not matter.
        """
        sets = [self._set(change) for change in changes if not isinstance(change, Remove)]
        removes = [self._path(change.path) for change in changes if isinstance(change, Remove)]
        clauses = [f"SET {', '.join(sets)}"] if sets else []
        if removes:
            clauses.append(f"REMOVE {', '.join(removes)}")
        return " ".join(clauses)

    def _condition(self, condition: Condition) -> tuple[str, _Binding]:
        match condition:
            case And(conditions):
                return self._joined(conditions, " AND ", _Binding.AND)
            case Or(conditions):
                return self._joined(conditions, " OR ", _Binding.OR)
            case Not(inner):
                return f"NOT {self._within(inner, _Binding.TEST)}", _Binding.NOT
            case Exists(path):
                return f"attribute_exists({self._path(path)})", _Binding.TEST
            case Absent(path):
                return f"attribute_not_exists({self._path(path)})", _Binding.TEST
            case OfKind(path, kind):
                return f"attribute_type({self._path(path)}, {self.value({'S': kind.value})})", _Binding.TEST
            case FewerThan(path, number):
                is_map = f"attribute_type({self._path(path)}, {self.value({'S': ValueKind.MAP.value})})"
                return f"{is_map} AND size({self._path(path)}) < {self.value(to_attribute(number))}", _Binding.AND
            case Contains(path, value):
                return f"contains({self._path(path)}, {self.value(to_attribute(value))})", _Binding.TEST
            case _:
                operator = _OPERATORS[type(condition)]
                return f"{self._path(condition.path)} {operator} {self.value(to_attribute(condition.value))}", _Binding.TEST

    def _joined(self, conditions: Sequence[Condition], operator: str, binding: _Binding) -> tuple[str, _Binding]:
        if len(conditions) == 1:
            return self._condition(conditions[0])
        return operator.join(self._within(each, binding) for each in conditions), binding

    def _within(self, condition: Condition, binding: _Binding) -> str:
        text, own = self._condition(condition)
        return f"({text})" if own < binding else text

    def _set(self, change: Assign | AssignIfAbsent | Add) -> str:
        path = self._path(change.path)
        match change:
            case Assign(_, value):
                return f"{path} = {self.value(to_attribute(value))}"
            case AssignIfAbsent(_, value):
                return f"{path} = if_not_exists({path}, {self.value(to_attribute(value))})"
            case Add(_, number):
                # Not the ADD clause: the developer guide allows it for top-level attributes only.
                return f"{path} = if_not_exists({path}, {self.value({'N': '0'})}) + {self.value(to_attribute(number))}"
            case _:
                assert_never(change)

    def _path(self, path: Path) -> str:
        return self.name(path) if isinstance(path, str) else f"{self.name(path[0])}.{self.name(path[1])}"
