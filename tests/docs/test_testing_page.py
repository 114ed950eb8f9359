"""docs/testing.md: its tests run as they stand there."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.testing.pytest_run import run_pytest

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
(EXAMPLE,) = re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE, re.MULTILINE)


@pytest.mark.timeout(180)  # It starts pytest and a server in processes of their own.
def test_example_of_the_page_passes(tmp_path: Path) -> None:
    printed = run_pytest(tmp_path, test_example=textwrap.dedent(EXAMPLE))
    assert "2 passed" in printed, printed
    assert printed.endswith("exit code 0")
