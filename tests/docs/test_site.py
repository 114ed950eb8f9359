"""The site of the manual: its navigation, and what `make site` builds."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pytest

from docs.site import site_pages, write_source
from tests.conftest import IN_CI

ROOT: Final = Path(__file__).parents[2]
CONFIG: Final = tomllib.loads((ROOT / "zensical.toml").read_text())
BUILD_S: Final = 120.0


def pages_in(nav: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the pages of the navigation, in order."""
    for entry in nav:
        for target in entry.values():
            if isinstance(target, str):
                yield target
            else:
                yield from pages_in(target)


def test_navigation_has_every_page_once() -> None:
    listed = list(pages_in(CONFIG["project"]["nav"]))
    assert len(listed) == len(set(listed))
    # The records of decisions are listed on their own page.
    wanted = {name for name in site_pages().values() if not name.startswith("decisions/0")}
    assert set(listed) == wanted


def test_links_of_the_source_stay_on_the_site(tmp_path: Path) -> None:
    write_source(tmp_path)
    for page in tmp_path.rglob("*.md"):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path = target.partition("#")[0]
            if path and not re.match(r"[a-z]+:", path):
                assert (page.parent / path).exists(), f"{page.relative_to(tmp_path)}: {target}"


class Built(HTMLParser):
    """The anchors of a page, where its links lead, and what a browser loads for it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.anchors, self.links, self.loaded = set[str](), set[str](), set[str]()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.add(given.get("href", ""))
        if tag in ("script", "img", "iframe", "source"):
            self.loaded.add(given.get("src", ""))


@pytest.mark.timeout(BUILD_S + 60)
def test_built_site_has_no_broken_link_and_requests_nothing_from_elsewhere(tmp_path: Path) -> None:
    builder = ROOT / ".venv-site" / "bin" / "zensical"
    if not builder.exists() or not IN_CI:
        assert not IN_CI, "CI must have .venv-site: make .venv-site/installed"
        pytest.skip("the site is built in CI, and by make site")
    write_source(tmp_path / "build" / "site-source")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    done = subprocess.run(
        [builder, "build", "--strict"], cwd=tmp_path, capture_output=True, text=True, timeout=BUILD_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    pages = {page.resolve(): Built(page) for page in site.rglob("*.html") if page.name != "404.html"}
    assert len(pages) > 100
    for page, built in pages.items():
        assert [each for each in built.loaded if re.match(r"(?:[a-z]+:)?//", each)] == [], page
        broken = [link for link in built.links if not leads_somewhere(link, page, pages)]
        assert broken == [], page.relative_to(site)


def leads_somewhere(link: str, page: Path, pages: dict[Path, Built]) -> bool:
    """Return whether a link leads to another site, or to a page of this one and an anchor that it has."""
    parts = urlsplit(link)
    if parts.scheme:
        return True
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    target = target / "index.html" if target.is_dir() else target
    if target not in pages:
        return target.exists()
    return not parts.fragment or unquote(parts.fragment) in pages[target].anchors
