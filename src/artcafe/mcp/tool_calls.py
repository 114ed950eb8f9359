"""Tools of MCP made from the functions of `artcafe.tools`: their schemas, and calls with checked arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, cast, get_args, get_origin, get_type_hints

import msgspec
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult, TextContent, Tool, ToolAnnotations

from artcafe.errors import ArtcafeError, Invalid
from artcafe.tools import AgentTools, fault_of

READS: Final = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
WRITES: Final = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
HINTS: Final[Mapping[str, ToolAnnotations]] = {
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
    "ack": ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False),
}
_AT: Final = re.compile(r"(?P<problem>.*) - at `\$\.(?P<field>.*)`", re.DOTALL)
_NAMED: Final = re.compile(r"Object (?P<problem>.*) `(?P<field>.*)`", re.DOTALL)
_MARKUP: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
"""Escapes of JSON for characters of markup, which JSON text has within strings only."""


class ToolCalls:
    """The tools of an agent, as MCP lists and calls them."""

    def __init__(self, tools: AgentTools) -> None:
        self._functions = {function.__name__: function for function in tools.functions}
        self._arguments = {name: _arguments_of(function) for name, function in self._functions.items()}
        self.listed: Final = [_tool(name, function, self._arguments[name]) for name, function in self._functions.items()]
        """The descriptions of all tools, always in the same order."""

    async def call(self, name: str, arguments: Mapping[str, Any]) -> CallToolResult:
        """Call a tool. An error of ArtCafe is a result with `is_error`; an unknown tool raises `MCPError`."""
        function = self._functions.get(name)
        if function is None:
            raise MCPError(INVALID_PARAMS, f"there is no tool {name!r}; tools/list has all of them")
        try:
            found = await function(**_checked(arguments, self._arguments[name]))
        except ArtcafeError as exc:
            # As text only: clients compare a structure with the tool's schema of results, even that of an error.
            return CallToolResult(content=[TextContent(text=json_text({"error": fault_of(exc)}))], is_error=True)
        return CallToolResult(content=[TextContent(text=json_text(found))], structured_content=found)


def json_text(value: object) -> str:
    """Encode a JSON value. Text of others in it cannot end a surrounding tag or quote: characters of markup are escaped."""
    return msgspec.json.encode(value).decode().translate(_MARKUP)


def _arguments_of(function: Callable[..., Awaitable[Any]]) -> type[msgspec.Struct]:
    """Return a struct with the parameters of a function, which refuses other fields."""
    hints = get_type_hints(function, include_extras=True)
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for parameter in inspect.signature(function).parameters.values():
        hint = _described(hints[parameter.name])
        default = parameter.default
        fields.append((parameter.name, hint) if default is parameter.empty else (parameter.name, hint, default))
    return msgspec.defstruct(function.__name__, fields, forbid_unknown_fields=True, frozen=True)


def _described(hint: Any) -> Any:
    """Return a type annotated with its description for schemas, if it is annotated with a text."""
    if get_origin(hint) is not Annotated:
        return hint
    type_, *notes = get_args(hint)
    return Annotated[type_, msgspec.Meta(description=next(note for note in notes if isinstance(note, str)))]


def _tool(name: str, function: Callable[..., Awaitable[Any]], arguments: type[msgspec.Struct]) -> Tool:
    return Tool(
        name=name,
        description=inspect.getdoc(function),
        input_schema=_schema(arguments),
        output_schema=_schema(get_type_hints(function, include_extras=True)["return"]),
        annotations=HINTS[name],
    )


def _schema(type_: Any) -> dict[str, Any]:
    """Return a JSON schema whose root is an object: older clients take no reference there."""
    schema = msgspec.json.schema(type_)
    name = schema.pop("$ref").removeprefix("#/$defs/")
    definitions = schema["$defs"]
    root = cast(dict[str, Any], definitions.pop(name))
    return {**root, "$defs": definitions} if definitions else root


def _checked(arguments: Mapping[str, Any], type_: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the arguments of a call. Raises `Invalid` for a wrong type, and for a missing or unknown name."""
    try:
        checked = msgspec.convert(dict(arguments), type_)
    except msgspec.ValidationError as exc:
        found = _AT.fullmatch(str(exc)) or _NAMED.fullmatch(str(exc))
        field, problem = (found["field"], found["problem"]) if found else ("arguments", str(exc))
        raise Invalid(field, f"{problem}; the tool's arguments are: {', '.join(type_.__struct_fields__)}") from None
    return {name: getattr(checked, name) for name in type_.__struct_fields__}
