"""Fixtures of the console's tests: one browser for a module, and a visitor for each test, whose page must have no fault."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests import node
from tests.children import plain_environ
from tests.conftest import Require
from tests.console.visitor import ROOT, WIDE, Visitor
from tests.platform import Platform

CHROMIUM: Final = "Chromium with Node.js (the console's tests need a browser)"

NewVisitor = Callable[[], Visitor]


@pytest.fixture(scope="module")
def browser(require: Require) -> Iterator[Browser]:
    """Return Debian's Chromium, without a window."""
    chromium = shutil.which("chromium")
    require(CHROMIUM, chromium is not None and node.is_there())
    node.install(ROOT, plain_environ())
    with sync_playwright() as playwright:
        # Without a sandbox of its own: CI runs as root in a container, and the pages are ours.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def new_visitor(browser: Browser, platform: Platform, request: pytest.FixtureRequest) -> Iterator[NewVisitor]:
    """Return a function that opens a page for another person. At the end every page must be without a fault."""
    visitors: list[Visitor] = []
    pictures: Path | None = request.config.getoption("--screenshots")

    def make() -> Visitor:
        # In New York, so that local times differ from UTC.
        context = browser.new_context(viewport=WIDE, locale="en-GB", timezone_id="America/New_York")  # type: ignore[arg-type]  # A dict with the keys of ViewportSize.
        visitors.append(Visitor(context.new_page(), platform, pictures))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.page.context.close()
    for visitor in visitors:
        visitor.check()


@pytest.fixture
def visitor(new_visitor: NewVisitor) -> Visitor:
    """Return one person in a browser."""
    return new_visitor()
