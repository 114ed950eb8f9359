"""The decision records: their list, their numbers, and the files they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
SOURCE = ROOT / "src" / "artcafe"


def test_readme_lists_every_record_with_its_title_and_one_line() -> None:
    listed = re.findall(r"^- \[(.+?)\]\((.+?)\): \S.*\.$", (ROOT / "docs" / "decisions" / "README.md").read_text(), re.MULTILINE)
    titles = [(record.read_text().splitlines()[0].removeprefix("# "), record.name) for record in RECORDS]
    assert listed == titles


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem[:4])
def test_record_has_its_number_its_date_its_sections_and_existing_files(record: Path) -> None:
    text = record.read_text()
    assert text.startswith(f"# {int(record.stem[:4])}. ")
    assert re.search(r"^Date: \d{4}-\d\d-\d\d\. Code: ", text, re.MULTILINE)
    assert re.search(r"^\*\*Decisions?\.\*\*", text, re.MULTILINE)
    assert "**We would notice that it was wrong**" in text
    code = text.partition("Code: ")[2].partition("\n\n")[0]
    paths = [each for each in re.findall(r"`([^`]+)`", code) if "/" in each or each.endswith((".py", ".toml", ".lock"))]
    assert paths
    assert not [path for path in paths if not (SOURCE / path).exists() and not (ROOT / path).exists()]
