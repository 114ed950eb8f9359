"""A person in a real browser: sign in, look for faults of the page, check its accessibility, and take pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
from playwright.sync_api import ConsoleMessage, Page, expect

from tests.platform import Platform

ROOT: Final = Path(__file__).parents[2] / "console"
AXE: Final = ROOT / "node_modules" / "axe-core" / "axe.min.js"
TIMEOUT_MS: Final = 30_000.0
WIDE: Final = {"width": 1280, "height": 800}
NARROW: Final = {"width": 390, "height": 800}
REPORT_VIOLATIONS: Final = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`CSP violation: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""
RUN_AXE: Final = "axe.run(document, {resultTypes: ['violations']}).then((found) => JSON.stringify(found.violations))"


@dataclass
class Visitor:
    """One person in a browser context of their own. `faults` has every console error and violation of the policy."""

    page: Page
    platform: Platform
    pictures: Path | None = None
    faults: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    """Patterns of errors that the test provokes, such as the browser's own line for a 403."""

    def __post_init__(self) -> None:
        self.page.set_default_timeout(TIMEOUT_MS)
        expect.set_options(timeout=TIMEOUT_MS)
        self.page.add_init_script(REPORT_VIOLATIONS)
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.faults.append(message.text)

    def expect_error(self, pattern: str) -> None:
        """Allow errors that this pattern describes."""
        self.expected.append(pattern)

    def check(self) -> None:
        """Fail on every error and violation that the test did not expect."""
        assert not [fault for fault in self.faults if not any(re.search(each, fault) for each in self.expected)]

    # --- signing in ---

    def sign_in(self, user: str, path: str = "") -> None:
        """Open the console with a code for this user, and then a path such as `/t/ten_…/agents`."""
        self.page.goto(f"{self.platform.url}/console#code={self.code(user)}")
        expect(self.page.get_by_role("button", name="Sign out")).to_be_visible()
        if path:
            self.open(path)

    def code(self, user: str) -> str:
        """Return a code that signs this user in once."""
        return str(self.rest(user, "POST", "/v1/auth/console-codes")["code"])

    def open(self, path: str) -> None:
        """Go to a screen, as a click on a link does: the page is not loaded again."""
        self.page.evaluate("(hash) => { window.location.hash = hash; }", path)

    def tenant(self, user: str, name: str = "Acme") -> str:
        """Create a tenant of this user over REST, and return its id."""
        return str(self.rest(user, "POST", "/v1/tenants", {"name": name})["id"])

    def rest(self, user: str, method: str, path: str, body: object = None) -> Any:
        """Return the answer to a REST request of this user."""
        headers = {"Authorization": f"Bearer {self.platform.token(user)}"}
        answer = httpx2.request(method, self.platform.url + path, headers=headers, json={} if body is None else body, timeout=30)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    # --- looking ---

    def check_accessibility(self, *, themes: Sequence[str] = ("light", "dark")) -> None:
        """Fail on every finding of axe. Its script comes over the debugging protocol, so the page's policy stays as it is."""
        session = self.page.context.new_cdp_session(self.page)
        session.send("Runtime.evaluate", {"expression": AXE.read_text()})
        for theme in themes:
            self.page.emulate_media(color_scheme="dark" if theme == "dark" else "light", reduced_motion="reduce")
            found = session.send("Runtime.evaluate", {"expression": RUN_AXE, "awaitPromise": True, "returnByValue": True})
            assert "value" in found["result"], found
            violations = json.loads(found["result"]["value"])
            assert not violations, _readable(violations)
        session.detach()

    def picture(self, name: str) -> None:
        """Save the screen wide and narrow, light and dark, if the run has `--screenshots`."""
        if self.pictures is None:
            return
        self.page.evaluate("window.scrollTo(0, 0)")
        for width, size in (("wide", WIDE), ("narrow", NARROW)):
            self.page.set_viewport_size(size)  # type: ignore[arg-type]  # A dict with the keys of ViewportSize.
            for theme in ("light", "dark"):
                self.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
                self.page.screenshot(path=self.pictures / f"{name}-{width}-{theme}.png", full_page=True)
        self.page.set_viewport_size(WIDE)  # type: ignore[arg-type]  # As above.


def _readable(violations: list[dict[str, Any]]) -> str:
    return "\n".join(f"{each['id']}: {each['help']}\n  {[node['html'] for node in each['nodes']][:5]}" for each in violations)
