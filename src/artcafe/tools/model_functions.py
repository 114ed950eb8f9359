"""Tools as functions for the frameworks: errors are results, and types are evaluated."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from artcafe.errors import ArtcafeError
from artcafe.sdk.blocking import call
from artcafe.toolset.functions import Tool
from artcafe.toolset.results import fault_of

F = TypeVar("F", bound=Callable[..., Any])


class Description(str):
    """The description of an argument, as text in `Annotated`. Pydantic adds it to JSON schemas, and ignores other text."""

    __slots__ = ()

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {**handler(schema), "description": str(self)}


def coroutine_function(tool: Tool) -> Tool:
    """Return a tool as a coroutine function that returns `{"error": …}` instead of raising `ArtcafeError`.

    After an exception some frameworks end the run (LangGraph, Pydantic AI), and others hide its text from the model.
    """

    async def function(*args: Any, **kwargs: Any) -> Any:
        try:
            return await tool(*args, **kwargs)
        except ArtcafeError as exc:
            return {"error": fault_of(exc)}

    return _described(function, tool)


def plain_function(tool: Tool) -> Callable[..., Any]:
    """Return the same as a function that blocks its thread, for an agent of `artcafe.sync`.

    Its docstring has a section of arguments: frameworks of plain functions, such as smolagents, read them there.
    """
    returning = coroutine_function(tool)

    def function(*args: Any, **kwargs: Any) -> Any:
        return call(returning(*args, **kwargs))

    described = _described(function, tool)
    lines = [f"    {name}: {_description(hint)}" for name, hint in described.__annotations__.items() if name != "return"]
    described.__doc__ = "\n".join([f"{inspect.getdoc(tool)}\n", "Args:", *lines] if lines else [f"{inspect.getdoc(tool)}"])
    return described


def _described(function: F, tool: Tool) -> F:
    """Give a function the name, the docstring and the signature of a tool, with types that are no text.

    The result is a dict for all of them: pydantic refuses a `typing.TypedDict` before Python 3.12.
    """
    hints = get_type_hints(tool, include_extras=True) | {"return": dict[str, Any]}
    signature = inspect.signature(tool)
    parameters = [each.replace(annotation=_readable(hints[name])) for name, each in signature.parameters.items()]
    functools.update_wrapper(function, tool)
    del function.__wrapped__  # type: ignore[attr-defined]  # Frameworks would look at the tool instead.
    function.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": hints["return"]}
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]  # `inspect.signature` returns it.
        parameters=parameters, return_annotation=hints["return"]
    )
    return function


def _readable(hint: Any) -> Any:
    """Return the type of an argument with a description that pydantic reads, too."""
    return Annotated[get_args(hint)[0], Description(_description(hint))]


def _description(hint: Any) -> str:
    return str(next(note for note in get_args(hint)[1:] if isinstance(note, str)))
