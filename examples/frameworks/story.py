"""The task of every recipe, and the calls of tools that its offline model makes for it."""

from __future__ import annotations

from typing import Any, Final

TASK: Final = "Ask a researcher how many papers there are, and publish the number in news."

CALLS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("agents_find", {"capability": "research"}),
    ("ask", {"agent": "researcher", "data": {"question": "How many papers?"}}),
    ("publish", {"channel": "news", "data": {"papers": 42}}),
    ("publish", {"channel": "no-such-channel", "data": {"papers": 42}}),
    ("inbox_pull", {"wait_s": 25}),
)
"""A model decides on its own, from the results. Those of the researcher are known, so these calls need no model."""
