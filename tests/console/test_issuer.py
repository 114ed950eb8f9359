"""Signing in at an issuer: the code flow with PKCE, its checks, and an issuer that is down."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.console.login_issuer import LoginIssuer
from tests.console.visitor import Visitor
from tests.platform import Platform, running


@pytest.fixture(scope="module")
def issuer() -> Iterator[LoginIssuer]:
    with LoginIssuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def platform(issuer: LoginIssuer, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Return a platform whose people log in at the issuer, and must accept terms."""
    assert browser.is_connected()  # Without a browser nothing is started.
    folder = tmp_path_factory.mktemp("with-an-issuer")
    (folder / "terms.txt").write_text("Be kind.\n<script>alert(1)</script>")
    flags = ("--issuer", issuer.url, "--client-ids", issuer.audience, "--console-client-id", issuer.audience)
    more = ("--console-scope", issuer.scope, "--terms-version", "2026-11", "--terms-file", str(folder / "terms.txt"))
    with running(folder, (*flags, *more)) as platform:
        yield platform


def test_person_signs_in_accepts_the_terms_and_signs_in_again_without_losing_text(visitor: Visitor, issuer: LoginIssuer) -> None:
    page = visitor.page
    page.clock.install()
    page.goto(f"{visitor.platform.url}/console")
    expect(page.get_by_role("heading", name="Terms of service")).to_be_visible()
    expect(page.get_by_label("Terms of service", exact=True)).to_contain_text("<script>alert(1)</script>")
    expect(page.get_by_text("You are signed in as alice. Accept version 2026-11")).to_be_visible()
    assert "code=" not in page.url
    visitor.check_accessibility()
    visitor.picture("terms")
    page.get_by_role("button", name="Accept").click()
    page.get_by_label("Name").fill("Typed before the token expired")
    page.clock.fast_forward(3_700_000)
    expect(page.get_by_role("dialog", name="Sign in again")).to_be_visible()
    visitor.check_accessibility()
    visitor.picture("sign-in-again")
    page.get_by_role("button", name="Open the sign-in window").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_label("Name")).to_have_value("Typed before the token expired")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="Agents")).to_be_visible()
    assert page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])") == '[{},{},""]'


@pytest.mark.parametrize("only_with_scope", [False, True])
def test_expired_token_is_renewed_without_the_person_where_the_issuer_gives_refresh_tokens(
    visitor: Visitor, issuer: LoginIssuer, monkeypatch: pytest.MonkeyPatch, only_with_scope: bool
) -> None:
    monkeypatch.setattr(issuer, "has_refresh_tokens", True)
    monkeypatch.setattr(issuer, "renews_only_with_scope", only_with_scope)
    monkeypatch.setattr(issuer, "subject", f"bob-{only_with_scope}")
    if only_with_scope:
        visitor.expect_error("status of 400")
    page = visitor.page
    page.clock.install()
    page.goto(f"{visitor.platform.url}/console")
    page.get_by_role("button", name="Accept").click()
    expect(page.get_by_role("heading", name="Organisations")).to_be_visible()
    renewals: list[str] = []
    page.on("request", lambda request: renewals.append(request.post_data or "") if request.url.endswith("/token") else None)
    with page.expect_response(lambda answer: answer.url.endswith("/token") and answer.ok):
        page.clock.fast_forward(3_700_000)
    assert all("grant_type=refresh_token" in each for each in renewals)
    assert ["scope=" in each for each in renewals] == ([False, True] if only_with_scope else [False])
    page.get_by_label("Name").fill("Acme")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="Agents")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("wrong", [{"state": "another"}, {"iss": "https://elsewhere.example.com"}, {"nonce": "another"}])
def test_wrong_state_issuer_or_nonce_signs_nobody_in(visitor: Visitor, issuer: LoginIssuer, wrong: dict[str, str]) -> None:
    issuer.overrides = wrong
    try:
        visitor.page.goto(f"{visitor.platform.url}/console")
        expect(visitor.page.get_by_role("alert")).to_contain_text("sign_in_failed")
        expect(visitor.page.get_by_role("button", name="Sign out")).to_have_count(0)
    finally:
        issuer.overrides = {}


def test_issuer_that_is_down_is_named_and_can_be_tried_again(visitor: Visitor, issuer: LoginIssuer) -> None:
    visitor.expect_error("ERR_CONNECTION_REFUSED")
    issuer.go()
    try:
        visitor.page.goto(f"{visitor.platform.url}/console")
        expect(visitor.page.get_by_role("alert")).to_contain_text(f"{issuer.url} cannot be reached")
        visitor.check_accessibility()
        visitor.picture("issuer-is-down")
    finally:
        issuer.come()
    visitor.page.get_by_role("button", name="Sign in").click()
    expect(visitor.page.get_by_role("button", name="Sign out")).to_be_visible()
