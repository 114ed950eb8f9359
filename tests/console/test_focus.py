"""Keyboard and sign-in: where the focus goes, and pages that stay as they are when the person signs in again."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from playwright.sync_api import expect

from tests.console.test_people import add_agent
from tests.console.visitor import Visitor

OWNER: Final = "people-owner@example.com"
TWO_DAYS: Final = "48:00:00"


def open_form(visitor: Visitor, name: str) -> None:
    """Sign in at the channels, and type a name for a new one."""
    tenant = visitor.tenant(OWNER)
    visitor.page.clock.install()
    visitor.sign_in(OWNER, f"/t/{tenant}/channels")
    visitor.page.get_by_role("button", name="Create a channel").click()
    expect(visitor.page.get_by_label("Name", exact=True)).to_be_focused()
    visitor.page.keyboard.type(name)


def test_dialogs_begin_in_their_first_field_and_give_the_focus_back(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.page
    tenant = visitor.tenant(OWNER)
    agent = add_agent(visitor, tenant, tmp_path, "Scout")
    visitor.sign_in(OWNER, f"/t/{tenant}/agents/{agent}")
    for end in ("Escape", "Enter"):
        page.get_by_role("button", name="Edit").click()
        expect(page.get_by_role("dialog").get_by_label("Name")).to_be_focused()
        page.keyboard.press(end)
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("button", name="Edit")).to_be_focused()


def test_focus_goes_to_the_head_of_a_page_that_is_still_loading(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.page
    tenant = visitor.tenant(OWNER)
    add_agent(visitor, tenant, tmp_path, "Scout")
    visitor.sign_in(OWNER, f"/t/{tenant}/agents")
    page.get_by_role("link", name="Scout").click()
    expect(page.get_by_role("heading", name="Scout")).to_be_focused()


def test_focus_stays_around_a_row_that_was_removed(visitor: Visitor) -> None:
    page = visitor.page
    tenant = visitor.tenant(OWNER)
    for name in ("one", "two"):
        visitor.rest(OWNER, "POST", f"/v1/tenants/{tenant}/members", {"address": f"{name}@example.com", "role": "viewer"})
    visitor.sign_in(OWNER, f"/t/{tenant}/members")
    page.get_by_role("button", name="Revoke the invitation of one").click()
    expect(page.get_by_role("region", name="Open invitations")).to_be_focused()
    page.get_by_role("button", name="Revoke the invitation of two").click()
    expect(page.get_by_text("No open invitation")).to_be_visible()
    expect(page.get_by_role("main")).to_be_focused()


def test_address_that_is_pasted_into_an_open_page_signs_in(visitor: Visitor) -> None:
    page = visitor.page
    tenant = visitor.tenant(OWNER)
    page.goto(f"{visitor.platform.url}/console")
    expect(page.get_by_text("artcafe console", exact=True)).to_be_visible()
    page.goto(f"{visitor.platform.url}/console#code={visitor.code(OWNER)}")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    assert "code=" not in page.url
    visitor.open(f"/t/{tenant}/channels")
    visitor.expect_error("status of 401")
    page.get_by_role("button", name="Sign out").click()
    page.goto(f"{visitor.platform.url}/console#code=used-before")
    expect(page.get_by_text("bad_code")).to_be_visible()


def test_expired_page_stays_open_at_escape_and_a_pasted_address_keeps_what_was_typed(visitor: Visitor) -> None:
    page = visitor.page
    open_form(visitor, "half typed")
    place = page.url
    page.clock.fast_forward(TWO_DAYS)
    again = page.get_by_role("dialog", name="Sign in again")
    expect(again.get_by_text(f"artcafe console --no-open --user {OWNER}")).to_be_visible()
    for _ in range(3):
        page.keyboard.press("Escape")
    expect(again).to_be_visible()
    page.goto(f"{visitor.platform.url}/console#code={visitor.code(OWNER)}")
    expect(again).to_have_count(0)
    expect(page.get_by_label("Name", exact=True)).to_have_value("half typed")
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    assert page.url == place


def test_page_that_could_not_be_read_is_read_again_by_itself(visitor: Visitor) -> None:
    page = visitor.page
    tenant = visitor.tenant(OWNER)
    visitor.sign_in(OWNER, f"/t/{tenant}/channels")
    page.route("**/agents?*", lambda route: route.abort())
    visitor.expect_error("ERR_FAILED")
    visitor.open(f"/t/{tenant}/agents")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    page.unroute("**/agents?*")
    expect(page.get_by_text("No agent yet")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
