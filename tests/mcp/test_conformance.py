"""The conformance suite of the protocol, against our protocol layer and against the route of a real server.

It has scenarios for all that a server may offer. docs/mcp.md lists those that pass, and those for what is not offered.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests import node
from tests.children import plain_environ
from tests.conftest import Require
from tests.mcp.conformance_app import conformance_app
from tests.mcp.test_http import token_of
from tests.platform import Platform

SUITE: Final = Path(__file__).parent / "conformance"
PROGRAM: Final = SUITE / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
OWN_NODE: Final = SUITE / "node_modules" / ".bin" / "node"
"""The suite needs Node.js 22. On Linux (x64) its lock has one; elsewhere the system's must be as new."""
FIRST_NODE: Final = 22
RUN_S: Final = 120.0
PAGE: Final = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text()
OF_THE_ROUTE: Final = "dns-rebinding-protection"
"""The scenario about what the route checks before the protocol."""
OF_FIXTURES: Final = re.compile(r"^(tools-call|resources-read|resources-templates|server-stateless|json-schema)")
"""Scenarios that need the suite's own tools and resources, which a server does not have."""


def listed(version: str, row: str) -> set[str]:
    """Return the scenarios that the page lists for a version of the protocol."""
    (cell,) = re.findall(rf"^\| {version} \| {row} \| (.*) \|$", PAGE, re.MULTILINE)
    return set(re.findall(r"`([\w-]+)`", cell))


class Outcome(NamedTuple):
    """The scenarios that a run passed and failed, and the checks of messages against the protocol's JSON schema that failed."""

    passed: set[str]
    failed: set[str]
    against_schema: list[str]


def run_suite(url: str, version: str, folder: Path) -> Outcome:
    """Run the scenarios that a version of the protocol requires, and those without a score."""
    command = (
        str(OWN_NODE) if OWN_NODE.exists() else "node",
        str(PROGRAM),
        "server",
        "--url",
        url,
        "--requirements",
        version,
        "-o",
        str(folder),
    )
    output = node.run(SUITE, command, RUN_S, plain_environ(), may_fail=True)
    summary = output[output.index("=== SUMMARY ===") :]
    passed = set(re.findall(r"^✓ ([\w-]+): [1-9]\d* passed", summary, re.MULTILINE))
    failed = set(re.findall(r"^✗ ([\w-]+): ", summary, re.MULTILINE))
    checks = [(file.parent.name, each) for file in folder.glob("*/checks.json") for each in json.loads(file.read_text())]
    broken = [name for name, each in checks if each["id"] == "wire-schema-valid" and each["status"] != "SUCCESS"]
    assert any(each["id"] == "wire-schema-valid" for _, each in checks)
    return Outcome(passed, failed, broken)


@pytest.mark.timeout(node.INSTALL_S + 3 * RUN_S)
@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
async def test_scenarios_of_the_suite_pass_for_all_that_is_offered(
    platform: Platform, tmp_path: Path, require: Require, version: str
) -> None:
    require(node.NAME, node.is_there())
    await asyncio.to_thread(node.install, SUITE, plain_environ())
    require(f"Node.js {FIRST_NODE} or newer", OWN_NODE.exists() or node.is_there(FIRST_NODE))
    cast = await platform.tenant_with(agents=1, channels=1)
    async with conformance_app(f"{cast.url}/v1/tenants/{cast.tenant}/mcp", await token_of(cast, 0)) as url:
        fixture = await asyncio.to_thread(run_suite, f"{url}/fixture", version, tmp_path / "fixture")
        door = await asyncio.to_thread(run_suite, f"{url}/door", version, tmp_path / "door")
    passes = listed(version, "passes")
    assert fixture.passed >= passes - {OF_THE_ROUTE}
    assert fixture.failed == listed(version, "not offered") | {OF_THE_ROUTE}
    assert door.passed >= {name for name in passes if not OF_FIXTURES.match(name)}
    assert fixture.against_schema == door.against_schema == []
