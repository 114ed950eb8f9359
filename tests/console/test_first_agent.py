"""What a newcomer does: sign in, create an organisation, connect the first agent, and see its first message."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests import ssh_keygen
from tests.children import plain_environ, started_with_parent
from tests.console.visitor import Visitor


def test_first_agent_turns_the_page_green_when_it_connects_and_at_its_first_message(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.page
    visitor.sign_in("newcomer@example.com")
    visitor.check_accessibility()
    visitor.picture("organisations")
    page.get_by_label("Name").fill("Acme")
    page.get_by_role("button", name="Create").click()
    page.get_by_role("link", name="Connect your first agent").click()
    page.get_by_label("Name").fill("Scout")
    key = ssh_keygen.make_key(tmp_path / "scout")
    page.get_by_label("Public key").fill(ssh_keygen.public_line(key))
    visitor.check_accessibility()
    visitor.picture("connect-an-agent")
    page.get_by_role("button", name="Register the agent").click()
    expect(page.get_by_text("Waiting for Scout to connect")).to_be_visible()
    program = page.get_by_label("the Python program", exact=True).inner_text()
    running = started_with_parent((sys.executable, "-c", program), cwd=tmp_path, env=plain_environ(), stdout=subprocess.DEVNULL)
    expect(page.get_by_text("Scout is connected.")).to_be_visible()
    expect(page.get_by_text("Scout has sent its first message to news.")).to_be_visible()
    visitor.check_accessibility()
    visitor.picture("first-message")
    page.get_by_role("link", name="To the agent").click()
    expect(page.get_by_text("connected", exact=True)).to_be_visible()
    running.terminate()
    running.wait(30)
    expect(page.get_by_text("away", exact=True)).to_be_visible()
    visitor.check_accessibility()
    visitor.picture("agent")
    page.get_by_role("link", name="Agents").click()
    expect(page.get_by_role("link", name="Scout")).to_be_visible()
    visitor.check_accessibility()
    visitor.picture("agents")


def test_address_with_a_trailing_slash_keeps_its_code(visitor: Visitor) -> None:
    visitor.page.goto(f"{visitor.platform.url}/console/#code={visitor.code('typist@example.com')}")
    expect(visitor.page.get_by_role("button", name="Sign out")).to_be_visible()
    assert visitor.page.url == f"{visitor.platform.url}/console"  # The code is gone, too.


@pytest.mark.parametrize("form", ["OpenSSH", "PEM"])
def test_private_key_is_refused_with_a_warning_and_never_sent(visitor: Visitor, tmp_path: Path, form: str) -> None:
    tenant = visitor.tenant("careless@example.com")
    visitor.sign_in("careless@example.com", f"/t/{tenant}/connect")
    key = ssh_keygen.make_key(
        tmp_path / "key", "rsa-2048" if form == "PEM" else "ed25519", form="PEM" if form == "PEM" else "RFC4716"
    )
    sent: list[str] = []
    visitor.page.on("request", lambda request: sent.append(request.post_data or ""))
    visitor.page.get_by_label("Public key").fill(key.read_text())
    expect(visitor.page.get_by_text("This is a private key.")).to_be_visible()
    expect(visitor.page.get_by_label("Public key")).to_have_value("")
    visitor.page.get_by_label("Name").fill("Scout")
    visitor.page.get_by_role("button", name="Register the agent").click()
    assert not any("PRIVATE" in each for each in sent)
    assert visitor.rest("careless@example.com", "GET", f"/v1/tenants/{tenant}/agents")["items"] == []
