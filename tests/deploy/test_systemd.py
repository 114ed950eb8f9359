"""deploy/systemd: systemd accepts the units, and their sandbox leaves little."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.conftest import Require
from tests.deploy.tools import DEPLOY, find, program, run

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
EXPOSURE = 15
"""Tenths. systemd's own scale: 0.0 is sealed, 9.6 a unit without any setting, and below 2.0 it says OK."""


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_unit_and_its_sandbox(unit: Path, tmp_path: Path, require: Require) -> None:
    require("systemd-analyze", find("systemd-analyze") is not None)
    # The programs of this environment in place of those of an installation, which are checked too.
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/artcafe/bin/", f"{Path(sys.executable).parent}/"))
    assert run(program("systemd-analyze"), "verify", "--man=no", copy) == ""
    told = run(program("systemd-analyze"), "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", copy)
    assert "OK" in told.splitlines()[-1]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_unit_is_started_again_however_often_it_ends(unit: Path) -> None:
    section, _, service = unit.read_text().partition("[Service]")
    assert "\nStartLimitIntervalSec=0\n" in section
    assert "\nRestart=always\n" in service


def test_every_unit_has_the_same_sandbox_but_for_what_it_needs() -> None:
    sandboxes = [dict(re.findall(r"^(\w+)=(.*)$", unit.read_text().partition("# Files:")[2], re.MULTILINE)) for unit in UNITS]
    differing = {name for one in sandboxes for name in one if len({each.get(name) for each in sandboxes}) > 1}
    assert differing == {"ProcSubset", "RestrictAddressFamilies"}
