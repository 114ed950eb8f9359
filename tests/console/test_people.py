"""People in the console: roles, another tenant, signing out, hostile names, and a sign-in that expires."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import expect

from tests import ssh_keygen
from tests.console.conftest import NewVisitor
from tests.console.visitor import NARROW, WIDE, Visitor

OWNER: Final = "people-owner@example.com"
HOSTILE: Final = (
    "<img src=x onerror=alert(1)>",
    "\N{ARABIC LETTER ALEF}\N{ARABIC LETTER LAM}" * 32,
    '"><script>alert(1)</script>',
    "{{7*7}} ${7*7} javascript:alert(1)",
)


@pytest.fixture
def tenant(visitor: Visitor) -> str:
    return visitor.tenant(OWNER)


def add_member(visitor: Visitor, tenant: str, user: str, role: str) -> None:
    """Invite a user, who accepts."""
    made = visitor.rest(OWNER, "POST", f"/v1/tenants/{tenant}/members", {"address": user, "role": role})
    visitor.rest(user, "POST", "/v1/invitations/acceptances", {"token": made["token"]})


def add_agent(visitor: Visitor, tenant: str, folder: Path, name: str, description: str = "") -> str:
    """Register an agent with a new key, and return its id."""
    key = ssh_keygen.public_line(ssh_keygen.make_key(folder / f"key-{len(list(folder.iterdir()))}"))
    body = {"name": name, "public_key": key, "description": description, "capabilities": [name[:64]]}
    return str(visitor.rest(OWNER, "POST", f"/v1/tenants/{tenant}/agents", body)["id"])


def test_hostile_names_are_shown_as_text(visitor: Visitor, tenant: str, tmp_path: Path) -> None:
    ids = [add_agent(visitor, tenant, tmp_path, name, description=name) for name in HOSTILE]
    visitor.sign_in(OWNER, f"/t/{tenant}/agents")
    for name in HOSTILE:
        expect(visitor.page.get_by_role("link", name=name, exact=True)).to_be_visible()
    visitor.picture("hostile-names")
    visitor.open(f"/t/{tenant}/agents/{ids[0]}")
    expect(visitor.page.get_by_role("heading", name=HOSTILE[0])).to_be_visible()
    assert visitor.page.evaluate("document.querySelectorAll('#console img, #console script').length") == 0


def test_viewer_sees_no_buttons_and_the_server_refuses_changes(visitor: Visitor, tenant: str, tmp_path: Path) -> None:
    agent = add_agent(visitor, tenant, tmp_path, "Scout")
    add_member(visitor, tenant, "viewer@example.com", "viewer")
    headers: list[dict[str, str]] = []
    visitor.page.on("request", lambda request: headers.append(request.headers))
    visitor.sign_in("viewer@example.com", f"/t/{tenant}/agents/{agent}")
    expect(visitor.page.get_by_role("heading", name="Scout")).to_be_visible()
    expect(visitor.page.get_by_role("button", name="Delete")).to_have_count(0)
    expect(visitor.page.get_by_role("link", name="Members")).to_have_count(0)
    visitor.open(f"/t/{tenant}/members")
    expect(visitor.page.get_by_text("Your role does not see this page")).to_be_visible()
    token = next(each["authorization"] for each in headers if "authorization" in each)
    visitor.expect_error("status of 403")
    status = visitor.page.evaluate(
        "([path, token]) => fetch(path, {method: 'DELETE', headers: {Authorization: token}}).then((answer) => answer.status)",
        [f"/v1/tenants/{tenant}/agents/{agent}", token],
    )
    assert status == 403
    assert visitor.rest(OWNER, "GET", f"/v1/tenants/{tenant}/agents/{agent}")["name"] == "Scout"


def test_changed_role_shows_without_a_reload(visitor: Visitor, tenant: str, tmp_path: Path) -> None:
    agent = add_agent(visitor, tenant, tmp_path, "Scout")
    add_member(visitor, tenant, "admin@example.com", "admin")
    visitor.sign_in("admin@example.com", f"/t/{tenant}/agents/{agent}")
    expect(visitor.page.get_by_role("button", name="Delete")).to_be_visible()
    expect(visitor.page.get_by_text("Live", exact=True)).to_be_visible()
    visitor.rest(OWNER, "PATCH", f"/v1/tenants/{tenant}/members/admin@example.com", {"role": "viewer"})
    expect(visitor.page.get_by_role("button", name="Delete")).to_have_count(0)
    visitor.rest(OWNER, "DELETE", f"/v1/tenants/{tenant}/members/admin@example.com")
    expect(visitor.page.get_by_text("There is no such organisation")).to_be_visible()


def test_another_tenant_is_shown_like_an_unknown_one(visitor: Visitor, tenant: str, tmp_path: Path) -> None:
    add_agent(visitor, tenant, tmp_path, "Scout")
    visitor.tenant("stranger@example.com", "Elsewhere")
    visitor.sign_in("stranger@example.com", f"/t/{tenant}/agents")
    expect(visitor.page.get_by_text("There is no such organisation")).to_be_visible()
    shown = visitor.page.locator("main").inner_text()
    visitor.open("/t/ten_00000000000000000000000000/agents")
    expect(visitor.page.get_by_text("There is no such organisation")).to_be_visible()
    assert visitor.page.locator("main").inner_text() == shown


def test_member_is_invited_joins_and_gets_another_role(visitor: Visitor, new_visitor: NewVisitor, tenant: str) -> None:
    page = visitor.page
    visitor.sign_in(OWNER, f"/t/{tenant}/members")
    page.get_by_role("button", name="Invite").click()
    page.get_by_label("E-mail address").fill("guest@example.com")
    visitor.check_accessibility()
    page.get_by_role("dialog").get_by_role("button", name="Invite").click()
    token = page.get_by_label("the token", exact=True).inner_text()
    guest = new_visitor()
    guest.sign_in("guest@example.com")
    guest.page.get_by_label("The invitation's token").fill(token)
    guest.page.get_by_role("button", name="Join").click()
    expect(guest.page.get_by_role("heading", name="Agents")).to_be_visible()
    page.get_by_role("button", name="Close").click()
    visitor.open(f"/t/{tenant}/agents")
    visitor.open(f"/t/{tenant}/members")
    page.get_by_role("button", name="Change the role of guest@example.com").click()
    page.get_by_label("Role", exact=True).select_option("viewer")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row", name="guest@example.com").get_by_text("viewer")).to_be_visible()
    visitor.check_accessibility()
    visitor.picture("members")


def test_keys_are_rotated_and_the_agent_disabled_and_deleted(visitor: Visitor, tenant: str, tmp_path: Path) -> None:
    page = visitor.page
    agent = add_agent(visitor, tenant, tmp_path, "Scout")
    visitor.sign_in(OWNER, f"/t/{tenant}/agents/{agent}")
    page.get_by_role("button", name="Add a key").click()
    new = ssh_keygen.make_key(tmp_path / "new")
    page.locator("input[type=file]").set_input_files(new.with_suffix(".pub"))
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("button", name="Revoke SHA256")).to_have_count(2)
    page.get_by_role("row").filter(has_text="first").get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("button", name="Revoke SHA256")).to_have_count(1)
    listed = visitor.rest(OWNER, "GET", f"/v1/tenants/{tenant}/agents/{agent}/keys")["items"]
    assert [key["public_key"].split()[1] for key in listed] == [ssh_keygen.public_line(new).split()[1]]
    page.get_by_role("button", name="Disable", exact=True).first.click()
    page.get_by_role("dialog").get_by_role("button", name="Disable").click()
    expect(page.get_by_role("button", name="Enable", exact=True)).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No agent yet")).to_be_visible()


def test_back_button_after_signing_out_shows_nothing(visitor: Visitor, tenant: str, tmp_path: Path) -> None:
    agent = add_agent(visitor, tenant, tmp_path, "Scout")
    visitor.sign_in(OWNER, f"/t/{tenant}/agents")
    visitor.page.get_by_role("link", name="Scout").click()
    expect(visitor.page.get_by_role("heading", name="Scout")).to_be_visible()
    visitor.page.get_by_role("button", name="Sign out").click()
    expect(visitor.page.get_by_label("Or paste the code that it printed")).to_be_visible()
    visitor.check_accessibility()
    visitor.picture("sign-in")
    visitor.page.go_back()
    expect(visitor.page.get_by_label("Or paste the code that it printed")).to_be_visible()
    assert "Scout" not in visitor.page.content()
    assert agent not in visitor.page.content()


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_code_of_another_person_shows_whom_it_signs_in(visitor: Visitor, size: dict[str, int]) -> None:
    visitor.page.set_viewport_size(size)  # type: ignore[arg-type]  # A dict with the keys of ViewportSize.
    visitor.sign_in("mallory@example.com")
    expect(visitor.page.get_by_role("banner").get_by_text("mallory@example.com", exact=True)).to_be_in_viewport(ratio=1)
    visitor.check_accessibility()


def test_used_code_is_refused_and_a_pasted_one_signs_in(visitor: Visitor, tenant: str) -> None:
    visitor.expect_error("status of 401")
    used = visitor.code(OWNER)
    visitor.rest(OWNER, "POST", "/v1/auth/console-tokens", {"code": used})
    visitor.page.goto(f"{visitor.platform.url}/console#code={used}")
    expect(visitor.page.get_by_role("alert").get_by_text("bad_code")).to_be_visible()
    assert used not in visitor.page.url
    fresh = f"{visitor.platform.url}/console#code={visitor.code(OWNER)}"
    visitor.page.get_by_label("Or paste the code that it printed").fill(fresh)
    visitor.page.get_by_role("button", name="Sign in").click()
    expect(visitor.page.get_by_role("button", name="Sign out")).to_be_visible()
    expect(visitor.page.get_by_role("link", name="Acme").first).to_be_visible()
