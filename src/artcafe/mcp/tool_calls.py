"""Tools of MCP made from the functions of `artcafe.tools`: their descriptions, and calls with checked arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult, TextContent, Tool

from artcafe.errors import ArtcafeError
from artcafe.tools import AgentTools, fault_of
from artcafe.toolset.descriptions import describe, json_text


class ToolCalls:
    """The tools of an agent, as MCP lists and calls them."""

    def __init__(self, tools: AgentTools) -> None:
        self._functions = tools.tools
        self._descriptions = {name: describe(function) for name, function in self._functions.items()}
        self.listed: Final = [Tool.model_validate(each.listed) for each in self._descriptions.values()]
        """The descriptions of all tools, always in the same order."""

    async def call(self, name: str, arguments: Mapping[str, Any]) -> CallToolResult:
        """Call a tool. An error of ArtCafe is a result with `is_error`; an unknown tool raises `MCPError`."""
        function = self._functions.get(name)
        if function is None:
            raise MCPError(INVALID_PARAMS, f"there is no tool {name!r}; tools/list has all of them")
        try:
            found = await function(**self._descriptions[name].checked(arguments))
        except ArtcafeError as exc:
            # As text only: clients compare a structure with the tool's schema of results, even that of an error.
            return CallToolResult(content=[TextContent(text=json_text({"error": fault_of(exc)}))], is_error=True)
        return CallToolResult(content=[TextContent(text=json_text(found))], structured_content=found)
