"""Descriptions of tools as MCP lists them, made from their functions, and checks of the arguments of calls."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, cast, get_args, get_origin, get_type_hints

import msgspec

from artcafe.errors import Invalid

READS: Final = {"readOnlyHint": True, "idempotentHint": True, "openWorldHint": False}
WRITES: Final = {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False, "openWorldHint": False}
HINTS: Final[Mapping[str, Mapping[str, bool]]] = {
    "whoami": READS,
    "agents_find": READS,
    "channels_list": READS,
    "limits": READS,
    "publish": WRITES,
    "send": WRITES,
    "ask": WRITES,
    "reply": WRITES,
    # A pull holds messages of queues for a time, and counts a delivery; an ack removes what it is about.
    "inbox_pull": WRITES,
    "ack": {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True, "openWorldHint": False},
}
_AT: Final = re.compile(r"(?P<problem>.*) - at `\$\.(?P<field>.*)`", re.DOTALL)
_NAMED: Final = re.compile(r"Object (?P<problem>.*) `(?P<field>.*)`", re.DOTALL)
_MARKUP: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
"""Escapes of JSON for characters of markup, which JSON text has within strings only."""


@dataclass(frozen=True, slots=True)
class ToolDescription:
    """What is known of a tool without calling it."""

    listed: Mapping[str, Any]
    """Its entry in a list of tools, as JSON."""
    arguments: type[msgspec.Struct]
    """Its arguments; other fields are refused."""

    @property
    def name(self) -> str:
        return cast(str, self.listed["name"])

    def checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call. Raises `Invalid` for a wrong type, and for a missing or unknown name."""
        try:
            return self._given(msgspec.convert(dict(arguments), self.arguments))
        except msgspec.ValidationError as exc:
            raise self._invalid(exc) from None

    def parsed(self, arguments: bytes | msgspec.Raw) -> dict[str, Any]:
        """Return the arguments of a call from their JSON text. Raises as `checked` does."""
        try:
            return self._given(msgspec.json.decode(arguments, type=self.arguments))
        except msgspec.ValidationError as exc:
            raise self._invalid(exc) from None

    def _given(self, checked: msgspec.Struct) -> dict[str, Any]:
        return {name: getattr(checked, name) for name in self.arguments.__struct_fields__}

    def _invalid(self, exc: msgspec.ValidationError) -> Invalid:
        found = _AT.fullmatch(str(exc)) or _NAMED.fullmatch(str(exc))
        field, problem = (found["field"], found["problem"]) if found else ("arguments", str(exc))
        return Invalid(field, f"{problem}; the tool's arguments are: {', '.join(self.arguments.__struct_fields__)}")


def describe(function: Callable[..., Any], *, raw: bool = False) -> ToolDescription:
    """Describe a tool by its function or method. With `raw`, arguments of any JSON value are left as their text."""
    arguments, name = _arguments(function, msgspec.Raw if raw else Any), function.__name__
    listed = {
        "name": name,
        "description": inspect.getdoc(function),
        "inputSchema": _schema(arguments),
        "outputSchema": _schema(get_type_hints(function, include_extras=True)["return"]),
        "annotations": HINTS[name],
    }
    return ToolDescription(listed, arguments)


def input_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the JSON schema of a tool's arguments."""
    return _schema(_arguments(function, Any))


def escaped(text: str) -> str:
    """Escape the markup in JSON text, so that text of others in it cannot end a surrounding tag."""
    return text.translate(_MARKUP)


def json_text(value: object) -> str:
    """Encode a JSON value. Text of others in it cannot end a surrounding tag or quote: characters of markup are escaped."""
    return escaped(msgspec.json.encode(value).decode())


def _arguments(function: Callable[..., Any], any_value: Any) -> type[msgspec.Struct]:
    """Return a struct of a tool's arguments. `any_value` is the type of any JSON value."""
    hints = get_type_hints(function, include_extras=True)
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for each in inspect.signature(function).parameters.values():
        if each.name != "self":
            hint = _described(hints[each.name], any_value)
            fields.append((each.name, hint) if each.default is each.empty else (each.name, hint, each.default))
    return msgspec.defstruct(function.__name__, fields, forbid_unknown_fields=True, frozen=True)


def _described(hint: Any, any_value: Any) -> Any:
    """Return a type annotated with its description for schemas, if it is annotated with a text. `any_value` is the type of any
    JSON value."""
    if get_origin(hint) is not Annotated:
        return hint
    type_, *notes = get_args(hint)
    text = next(note for note in notes if isinstance(note, str))
    return Annotated[any_value if type_ is Any else type_, msgspec.Meta(description=str(text))]


def _schema(type_: Any) -> dict[str, Any]:
    """Return a JSON schema whose root is an object: older clients take no reference there."""
    schema = msgspec.json.schema(type_)
    name = schema.pop("$ref").removeprefix("#/$defs/")
    definitions = schema["$defs"]
    root = cast(dict[str, Any], definitions.pop(name))
    return {**root, "$defs": definitions} if definitions else root
