"""The committed files of the console are those that its sources build."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from artcafe.rest.console import SCRIPT, static_files
from tests import node
from tests.children import plain_environ
from tests.conftest import Require
from tests.console.visitor import ROOT

STATIC: Final = ROOT.parent / "src" / "artcafe" / "console" / "static"
BUILD_S: Final = 240.0
MAX_SCRIPT_BYTES: Final = 150_000


@pytest.mark.timeout(node.INSTALL_S + 2 * BUILD_S)
def test_sources_pass_the_type_check_and_build_the_committed_files(tmp_path: Path, require: Require) -> None:
    require(node.NAME, node.is_there())
    node.install(ROOT, plain_environ())
    node.run(ROOT, ("npm", "run", "--silent", "check"), BUILD_S, plain_environ())
    node.run(ROOT, ("node", "build.mjs", str(tmp_path)), BUILD_S, plain_environ())
    built, committed = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in (tmp_path, STATIC))
    assert sorted(built) == sorted(committed)
    different = [name for name in built if built[name] != committed[name]]
    assert not different, f"run 'npm ci && npm run build' in console/: {different}"


def test_script_is_small() -> None:
    assert len(static_files()[SCRIPT].content) <= MAX_SCRIPT_BYTES
