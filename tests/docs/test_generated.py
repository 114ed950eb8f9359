from __future__ import annotations

import re
from pathlib import Path

import pytest

from artcafe import config
from artcafe.errors import REGISTRY
from docs import generate

ROOT = Path(__file__).parents[2]
PAGES = generate.pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_that_is_made_from_the_code_says_what_the_code_says(path: Path) -> None:
    assert path.read_text() == PAGES[path], "run: make docs"


def test_every_error_stands_once_on_the_page_under_the_anchor_that_a_problem_names() -> None:
    codes = [code for code, kind in REGISTRY.items() if kind.__module__.startswith("artcafe.")]
    assert sorted(re.findall(r'<a id="(\w+)"></a>`\1`', PAGES[ROOT / "docs" / "errors.md"])) == sorted(codes)


def test_every_setting_stands_on_the_page_with_its_variable() -> None:
    rows = re.findall(r"`ARTCAFE_(\w+)` \| `(\w+)` \|", PAGES[ROOT / "docs" / "settings.md"])
    assert [key for _, key in rows] == list(config.Settings.model_fields)
    assert all(variable == key.upper() for variable, key in rows)


def test_the_file_that_the_page_shows_is_taken(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGES[ROOT / "docs" / "settings.md"], re.DOTALL)
    file = tmp_path / "artcafe.toml"
    file.write_text(example)
    settings = config.load({}, {}, file)
    assert settings.listen == ("127.0.0.1", 9080)
    assert len(settings.model_fields_set) == len(example.splitlines())
