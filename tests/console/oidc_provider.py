"""An OpenID provider that is not ours, as a process: `oidc-provider` of npm, certified by the OpenID Foundation."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import BrowserContext, Page

from tests import node
from tests.children import plain_environ, started_with_parent
from tests.conftest import Require

FOLDER: Final = Path(__file__).parent / "oidc"
AUDIENCE: Final = "https://cafe.example.com"
OTHER_AUDIENCE: Final = "https://mail.example.com"
CLIENT: Final = "console"
_OWN_NODE: Final = FOLDER / "node_modules" / ".bin" / "node"
"""It needs Node.js 22. On Linux (x64) its lock has one; elsewhere the system's must be as new."""
_FIRST_NODE: Final = 22
_END_S: Final = 10.0


@contextmanager
def running_provider(console_origin: str, require: Require) -> Iterator[str]:
    """Run the provider with one public client, whose page has this origin. Yields its issuer."""
    require(node.NAME, node.is_there())
    node.install(FOLDER, plain_environ())
    require(f"Node.js {_FIRST_NODE} or newer", _OWN_NODE.exists() or node.is_there(_FIRST_NODE))
    command = (_OWN_NODE if _OWN_NODE.exists() else "node", "provider.mjs", console_origin)
    with started_with_parent(command, cwd=FOLDER, env=plain_environ(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            issuer = process.stdout.readline().decode().strip()
            assert issuer, f"the provider ended with {process.wait(_END_S)}"
            yield issuer
        finally:
            process.terminate()


def keep_its_pages_on_this_machine(context: BrowserContext) -> None:
    """Answer the web fonts that the provider's pages import from another host, with none."""
    context.route("https://fonts.googleapis.com/**", lambda route: route.fulfill(content_type="text/css", body=""))


def sign_in_there(page: Page, name: str) -> None:
    """Sign in on the provider's page, which takes any password, and consent."""
    page.get_by_placeholder("Enter any login").fill(name)
    page.get_by_placeholder("and password").fill("any")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()
