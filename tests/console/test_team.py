"""docs/tutorials/browser-team.md, played by two people in a browser, with its commands in a terminal. `--screenshots` takes the
pictures of the page.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.children import plain_environ, started_with_parent
from tests.console.conftest import NewVisitor
from tests.console.visitor import Visitor
from tests.docs.executed_page import BIN, DOCS, blocks_of
from tests.platform import Platform

PAGE: Final = DOCS / "tutorials" / "browser-team.md"
ALICE: Final = "alice@example.com"
BOB: Final = "bob@example.com"
CITIES: Final = ("Lisbon", "Oslo", "Rome")
COMMANDS: Final = [block.text for block in blocks_of(PAGE)]


@dataclass
class Tutorial:
    """The page that is played: a terminal for its commands, and the labels that were used, to compare them with the page's."""

    platform: Platform
    folder: Path
    exported: str = ""
    labels: set[str] = field(default_factory=set)

    def press(self, within: Page | Locator, role: Any, label: str) -> None:
        """Click what has this label, exactly."""
        self.labels.add(label)
        within.get_by_role(role, name=label, exact=True).click()

    def see(self, within: Page | Locator, label: str) -> None:
        """Wait until this text is shown."""
        self.labels.add(label)
        expect(within.get_by_text(label, exact=True).first).to_be_visible()

    def run(self, commands: str) -> str:
        """Run a block of the page, and return what it printed."""
        script = f"set -e\n{self.exported}\n{commands}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.environ(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def running(self, commands: str) -> Iterator[IO[bytes]]:
        """Run a block until Ctrl-C at the end. Yield what it prints."""
        script = f"{self.exported}\nexec {commands}"
        process = started_with_parent(
            ("bash", "-c", script),
            cwd=self.folder,
            env=self.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=30)

    def environ(self) -> dict[str, str]:
        """Return the variables of the terminal. No browser opens: the test takes the printed address."""
        path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
        without = {name: value for name, value in plain_environ().items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
        return without | {"PATH": path, "ARTCAFE_DATA_DIR": str(self.platform.data), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def tutorial(platform: Platform, tmp_path: Path) -> Tutorial:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()  # `environ` does what it does.
    return Tutorial(platform, tmp_path)


def sign_in(visitor: Visitor, tutorial: Tutorial, commands: str) -> None:
    visitor.page.goto(tutorial.run(commands).strip())
    expect(visitor.page.get_by_role("button", name="Sign out")).to_be_visible()


def look(visitor: Visitor, name: str) -> None:
    visitor.check_accessibility(themes=("light",))
    visitor.picture(name)


def invite_bob(alice: Visitor, bob: Visitor, tutorial: Tutorial, commands: str) -> None:
    """Bob joins, becomes a viewer for a moment, and a member again."""
    page = alice.page
    tutorial.press(page, "link", "Members")
    tutorial.press(page, "button", "Invite")
    page.get_by_label("E-mail address").fill(BOB)
    expect(page.get_by_label("Role", exact=True)).to_have_value("member")
    tutorial.press(page.get_by_role("dialog"), "button", "Invite")
    token = page.get_by_label("the token", exact=True).inner_text()
    sign_in(bob, tutorial, commands)
    tutorial.see(bob.page, "Accept an invitation")
    bob.page.get_by_label("The invitation's token").fill(token)
    tutorial.press(bob.page, "button", "Join")
    expect(bob.page.get_by_role("link", name="Connect an agent")).to_be_visible()
    page.get_by_role("button", name="Close").click()
    tutorial.press(page, "link", "Agents")
    tutorial.press(page, "link", "Members")
    look(alice, "team-members")
    for role, buttons in (("viewer", 0), ("member", 1)):
        tutorial.see(page.get_by_role("row", name=BOB), "Role")
        page.get_by_role("button", name=f"Change the role of {BOB}").click()
        page.get_by_label("Role", exact=True).select_option(role)
        tutorial.press(page, "button", "Save")
        tutorial.labels.add("Connect an agent")
        expect(bob.page.get_by_role("link", name="Connect an agent")).to_have_count(buttons)


def connect_scout(bob: Visitor, tutorial: Tutorial, keygen: str) -> None:
    """Register the agent, and keep the program and the variables that the page shows."""
    page = bob.page
    tutorial.press(page, "link", "Agents")
    tutorial.press(page, "link", "Connect an agent")
    page.get_by_label("Name").fill("Scout")
    page.get_by_label("Public key").fill(tutorial.run(keygen).strip())
    tutorial.press(page, "button", "Register the agent")
    (tutorial.folder / "scout.py").write_text(page.get_by_label("the Python program", exact=True).inner_text())
    tutorial.press(page, "tab", "Shell")
    tutorial.exported = page.get_by_label("the shell commands", exact=True).inner_text().splitlines()[0]
    assert tutorial.exported.startswith("export ARTCAFE_URL=")
    page.get_by_role("tab", name="Python").click()


def watch_news(alice: Visitor, bob: Visitor, tutorial: Tutorial, printed: IO[bytes]) -> None:
    """Bob publishes. Alice sees the message, and Scout acknowledges it."""
    for visitor in (alice, bob):
        tutorial.press(visitor.page, "link", "Channels")
        visitor.page.get_by_role("link", name="news").first.click()
    tutorial.press(bob.page, "button", "Publish")
    dialog = bob.page.get_by_role("dialog")
    dialog.get_by_label("Data", exact=True).fill('{"headline": "Bob was here"}')
    tutorial.press(dialog, "button", "Publish to news")
    expect(dialog.get_by_role("listitem").filter(has_text="scout")).to_contain_text("acked")
    bob.page.keyboard.press("Escape")
    expect(alice.page.get_by_role("button", name='{"headline":"Bob was here"}')).to_be_visible()
    look(alice, "team-channel")
    assert printed.readline().decode() == "scout {'hello': 'world'}\n"
    assert printed.readline().decode() == f"usr:{BOB} {{'headline': 'Bob was here'}}\n"


def make_jobs(alice: Visitor, tutorial: Tutorial) -> None:
    """Create the queue, and publish three tasks."""
    page = alice.page
    tutorial.press(page, "link", "Channels")
    tutorial.press(page, "button", "Create a channel")
    page.get_by_label("Name", exact=True).fill("jobs")
    page.get_by_label("Type").select_option("queue")
    page.get_by_label("Deliveries", exact=True).fill("1")
    page.get_by_role("button", name="Create", exact=True).click()
    tutorial.press(page, "button", "Publish")
    dialog = page.get_by_role("dialog")
    for city in CITIES:
        dialog.get_by_label("Data", exact=True).fill(f'{{"city": "{city}"}}')
        dialog.get_by_role("button", name="Publish to jobs").click()
        expect(page.get_by_role("table").get_by_text(city)).to_be_visible()
    page.keyboard.press("Escape")


def send_letters_back(alice: Visitor, tutorial: Tutorial, failing: str, succeeding: str) -> None:
    page = alice.page
    with tutorial.running(failing):
        tutorial.press(page, "tab", "Dead letters")
        expect(page.get_by_text("max_deliveries", exact=True)).to_have_count(3)
    with tutorial.running(succeeding) as printed:
        tutorial.press(page, "button", "Send all back")
        tutorial.see(page, "redriven")
        expect(page.get_by_role("status").filter(has_text="3 redriven")).to_be_visible()
        look(alice, "team-dead-letters")
        assert {json.loads(printed.readline())["data"]["city"] for _ in CITIES} == set(CITIES)


@pytest.mark.timeout(240)
def test_tutorial_of_a_team_is_played_as_its_page_says(visitor: Visitor, new_visitor: NewVisitor, tutorial: Tutorial) -> None:
    alice_signs_in, bob_signs_in, keygen, scout, failing, succeeding = COMMANDS
    visitor.tenant(ALICE, "Demo")  # As `make run` does.
    sign_in(visitor, tutorial, alice_signs_in)
    tutorial.press(visitor.page, "link", "ArtCafe")
    tutorial.see(visitor.page, "New organisation")
    visitor.page.get_by_label("Name").fill("Acme")
    tutorial.press(visitor.page, "button", "Create")
    bob = new_visitor()
    invite_bob(visitor, bob, tutorial, bob_signs_in)
    connect_scout(bob, tutorial, keygen)
    with tutorial.running(scout) as printed:
        expect(bob.page.get_by_text("Scout has sent its first message to news.")).to_be_visible()
        look(bob, "team-first-message")
        watch_news(visitor, bob, tutorial, printed)
    make_jobs(visitor, tutorial)
    send_letters_back(visitor, tutorial, failing, succeeding)
    tutorial.press(visitor.page, "link", "Usage")
    tutorial.press(visitor.page, "link", "Audit")
    tutorial.press(visitor.page, "button", "Check the chain")
    expect(visitor.page.get_by_text(re.compile(r"All \d+ entries are unchanged"))).to_be_visible()
    look(visitor, "team-audit")
    assert set(re.findall(r"\*\*(.+?)\*\*", PAGE.read_text())) <= tutorial.labels
