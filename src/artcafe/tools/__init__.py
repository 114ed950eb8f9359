"""Functions of an agent for language models: `from artcafe.tools import AgentTools`.

Plain, typed and documented functions, which the `@tool` of any framework wraps. `artcafe mcp` serves the same tools.
"""

from __future__ import annotations

from artcafe.tools.agent_tools import AgentTools
from artcafe.toolset.descriptions import input_schema
from artcafe.toolset.results import ToolFault, fault_of

__all__ = ["AgentTools", "ToolFault", "fault_of", "input_schema"]
