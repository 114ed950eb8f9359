"""docs/contract.md against the code: items marked † do not run in this version, all others do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from artcafe.cli.commands import COMMANDS
from artcafe.model import ChannelType
from tests.platform import Platform

PAGE = (Path(__file__).parents[2] / "docs" / "contract.md").read_text()
REST = PAGE.partition("\n## 3. REST")[2].partition("\n## ")[0]
GATEWAY = PAGE.partition("\n## 4. The gateway")[2].partition("\n## ")[0]


def routes() -> Iterator[tuple[str, bool]]:
    """Yield each path of the route table, and whether it is marked †."""
    for row in re.findall(r"^\| (`[/…].*?) \|", REST, re.MULTILINE):
        for path, mark in re.findall(r"`([^`]+)`(†?)", row):
            yield path.replace("…", "/v1/tenants/{tenant_id}"), bool(mark)


@pytest.fixture(scope="module")
def paths(platform: Platform) -> set[str]:
    """Return the paths in the OpenAPI document of a running server, and those of its documents and pages."""
    others = ("/openapi.json", "/asyncapi.json", "/docs/errors", "/console")
    return {*httpx2.get(f"{platform.url}/openapi.json").json()["paths"], *others}


def test_server_answers_every_route_that_is_not_marked(paths: set[str]) -> None:
    running = [path for path, is_marked in routes() if not is_marked]
    assert len(running) > 20
    assert [path for path in running if path not in paths] == []


def test_server_answers_no_route_that_is_marked(paths: set[str]) -> None:
    marked = [path for path, is_marked in routes() if is_marked]
    assert [path for path in marked if path in paths] == []


def test_frames_are_marked_exactly_if_the_gateway_does_not_know_them() -> None:
    known = set(re.findall(r"^### `(\w+)`", (Path(__file__).parents[2] / "docs" / "frames.md").read_text(), re.MULTILINE))
    assert known
    for line in re.findall(r"^[<>] .*", GATEWAY, re.MULTILINE):
        named = set(re.findall(r'[<>] \{(?:"id":\d+,)?"(\w+)":', line))
        assert named
        assert named <= known if "†" not in line.replace("queue†", "") else named.isdisjoint(known), line


def test_channel_types_and_commands_are_marked_exactly_if_they_do_not_exist() -> None:
    for kind, mark in re.findall(r"`(broadcast|queue|live)`(†?) \(", PAGE):
        assert (kind in {each.value for each in ChannelType}) is not bool(mark)
    (groups,) = re.findall(r"`artcafe ([\w|†]+) …` speak REST", PAGE)
    for name in groups.split("|"):
        assert (name.removesuffix("†") in COMMANDS) is not name.endswith("†")
