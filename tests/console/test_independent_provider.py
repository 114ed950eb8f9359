"""The console's sign-in at an OpenID provider that is not ours, through its own pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Response, expect

from artcafe.fabric.embedded.process import some_free_port
from tests import node, ssh_keygen
from tests.conftest import Require
from tests.console.conftest import NewVisitor
from tests.console.oidc_provider import (
    AUDIENCE,
    CLIENT,
    OTHER_AUDIENCE,
    keep_its_pages_on_this_machine,
    running_provider,
    sign_in_there,
)
from tests.console.visitor import Visitor
from tests.platform import Platform, running

pytestmark = pytest.mark.timeout(node.INSTALL_S)

SCOPE: Final = "openid email offline_access cafe"
HOUR_MS: Final = 3_600_000


@pytest.fixture(scope="module")
def console_origin() -> str:
    return f"http://127.0.0.1:{some_free_port()}"


@pytest.fixture(scope="module")
def issuer(console_origin: str, browser: Browser, require: Require) -> Iterator[str]:
    assert browser.is_connected()  # Without a browser nothing is started.
    with running_provider(console_origin, require) as issuer:
        yield issuer


def flags_for(issuer: str, console_origin: str, folder: Path, scope: str) -> tuple[str, ...]:
    at = ("--listen", console_origin.removeprefix("http://"))
    people = ("--issuer", issuer, "--client-ids", f"{AUDIENCE},{CLIENT}", "--console-client-id", CLIENT, "--console-scope", scope)
    return (*at, *people, "--terms-version", "2026-11", "--terms-file", str(folder / "terms.txt"))


@pytest.fixture(scope="module")
def platform(issuer: str, console_origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Return a platform whose people sign in at the provider, and must accept terms."""
    folder = tmp_path_factory.mktemp("independent-provider")
    (folder / "terms.txt").write_text("Be kind.")
    with running(folder, flags_for(issuer, console_origin, folder, SCOPE)) as platform:
        yield platform


@pytest.fixture
def new_guest(new_visitor: NewVisitor, issuer: str) -> NewVisitor:
    """Return a function that opens the console for another person, who comes to the provider's page."""

    def make() -> Visitor:
        visitor = new_visitor()
        keep_its_pages_on_this_machine(visitor.page.context)
        visitor.page.clock.install()
        visitor.page.goto(f"{visitor.platform.url}/console")
        visitor.page.wait_for_url(f"{issuer}/interaction/*")
        return visitor

    return make


def test_person_signs_in_works_renews_the_token_twice_and_signs_out(new_guest: NewVisitor, issuer: str, tmp_path: Path) -> None:
    visitor = new_guest()
    page = visitor.page
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer) if answer.url == f"{issuer}/token" else None)
    sign_in_there(page, "alice")
    page.get_by_role("button", name="Accept").click()
    assert (page.url, answers[0].json()["scope"]) == (f"{visitor.platform.url}/console", "cafe")
    page.get_by_label("Name").fill("Acme")
    page.get_by_role("button", name="Create").click()
    page.get_by_role("link", name="Connect your first agent").click()
    for number in (1, 2):
        with page.expect_response(f"{issuer}/token") as renewal:
            page.clock.fast_forward(HOUR_MS + 1000)
        assert renewal.value.status == 200
        # This provider accepts each refresh token once, so the second renewal needs the token of the first.
        assert "grant_type=refresh_token" in (renewal.value.request.post_data or "")
        assert len(answers) == 1 + number
    page.get_by_label("Name").fill("Scout")
    page.get_by_label("Public key").fill(ssh_keygen.public_line(ssh_keygen.make_key(tmp_path / "scout")))
    with page.expect_request(re.compile("/v1/tenants/.*/agents$")) as registration:
        page.get_by_role("button", name="Register the agent").click()
    expect(page.get_by_text("Waiting for Scout to connect")).to_be_visible()
    assert registration.value.headers["authorization"] == f"Bearer {answers[-1].json()['access_token']}"
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert len({answer.json()["refresh_token"] for answer in answers}) == len(answers) == 3
    assert page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])") == '[{},{},""]'
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text(f"Your identity provider signs you in: {issuer}")).to_be_visible()
    expect(page.get_by_text("Scout")).to_have_count(0)


def test_address_in_the_providers_id_token_accepts_an_invitation(new_guest: NewVisitor) -> None:
    owner, guest = new_guest(), new_guest()
    for visitor, name in ((owner, "olga"), (guest, "gustav")):
        sign_in_there(visitor.page, name)
        visitor.page.get_by_role("button", name="Accept").click()
    page = owner.page
    page.get_by_label("Name").fill("Olga's")
    page.get_by_role("button", name="Create").click()
    page.get_by_role("link", name="Members").click()
    page.get_by_role("button", name="Invite").click()
    page.get_by_label("E-mail address").fill("gustav@example.com")
    page.get_by_role("dialog").get_by_role("button", name="Invite").click()
    guest.page.get_by_label("The invitation's token").fill(page.get_by_label("the token", exact=True).inner_text())
    guest.page.get_by_role("button", name="Join").click()
    expect(guest.page.get_by_role("heading", name="Agents")).to_be_visible()
    expect(guest.page.get_by_title("Choose another organisation")).to_contain_text("Olga's")


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        ("openid email", "it is no JWT"),
        ("openid email mail", f"its audience is {OTHER_AUDIENCE}, its issuer http://127.0.0.1"),
    ],
)
def test_token_for_another_program_is_explained_with_the_setting_to_change(
    platform: Platform, new_guest: NewVisitor, issuer: str, console_origin: str, scope: str, found: str
) -> None:
    platform.stop()
    platform.set_flags(flags_for(issuer, console_origin, platform.folder, scope))
    platform.start()
    try:
        visitor = new_guest()
        visitor.expect_error("status of 401")
        sign_in_there(visitor.page, "alice")
        alert = visitor.page.get_by_role("alert")
        expect(alert).to_contain_text(f"The identity provider {issuer} has signed you in")
        expect(alert).to_contain_text(found)
        expect(alert).to_contain_text(f"sets ARTCAFE_CONSOLE_SCOPE (now {scope})")
        expect(alert).not_to_contain_text("Sign in again")
        visitor.check_accessibility()
        visitor.picture(f"refused-token-{len(scope)}")
        expect(visitor.page.get_by_role("button", name="Sign out")).to_have_count(0)
    finally:
        platform.stop()
        platform.set_flags(flags_for(issuer, console_origin, platform.folder, SCOPE))
        platform.start()
