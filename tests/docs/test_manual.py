"""The tutorials and the how-to pages: their code blocks are executed, or say why not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import Require
from tests.docs.executed_page import DOCS, blocks_of, run_page
from tests.platform import Platform

PAGES = sorted(page for kind in ("tutorials", "how-to", "concepts") for page in (DOCS / kind).glob("*.md"))
EXECUTED = [page for page in PAGES if any(block.is_commands for block in blocks_of(page))]
TOOLS = {"tls": ("nginx", "caddy", "openssl")}
"""What a page needs beside bash, curl and ssh-keygen."""


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", EXECUTED, ids=name_of)
def test_commands_of_a_page_print_what_it_shows(page: Path, platform: Platform, tmp_path: Path, require: Require) -> None:
    for tool in ("bash", "curl", "ssh-keygen", *TOOLS.get(page.stem, ())):
        require(tool, shutil.which(tool) is not None)
    run_page(page, platform, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_code_block_is_executed_or_says_why_not(page: Path) -> None:
    text, blocks = page.read_text(), blocks_of(page)
    assert text.count("```") == 2 * len(blocks), "a fence is not as tests/docs/executed_page.py reads it"
    for block in blocks:
        assert block.is_commands or block.is_output or block.is_file or block.is_marked, block.text
    around = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert not re.search(r"\n\n {4,}\S", around), "an indented block is not executed: use a fence"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_test_that_a_code_block_names_exists(page: Path) -> None:
    named = [block.mark.removeprefix("tested by ") for block in blocks_of(page) if block.mark and "tested by " in block.mark]
    assert [path for path in named if not (DOCS.parent / path).exists()] == []
