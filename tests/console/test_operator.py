"""The operator's page: who sees it, what it shows, and how it follows the platform."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import expect

from tests.console.conftest import NewVisitor
from tests.console.visitor import NARROW, Visitor
from tests.forked import run_artcafe
from tests.platform import WAIT_S, Platform, running

OPERATOR: Final = "operator@example.com"
OWNER: Final = "owner-beside-the-operator@example.com"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Run a server with an operator."""
    with running(tmp_path_factory.mktemp("platform"), ["--operators", OPERATOR]) as platform:
        yield platform


def suspend(visitor: Visitor, command: str, tenant: str) -> None:
    done = run_artcafe(command, tenant, "--data-dir", str(visitor.platform.data), timeout=WAIT_S)
    assert done.returncode == 0, done.stderr


def test_operator_sees_the_platform_and_reads_the_suspended_tenants_again(visitor: Visitor) -> None:
    page, tenant = visitor.page, visitor.tenant(OWNER, "Hidden from operators")
    visitor.sign_in(OPERATOR)
    page.get_by_role("link", name="Platform").click()
    expect(page.get_by_role("heading", name="Platform", level=1)).to_be_visible()
    expect(page).to_have_title("Platform · ArtCafe")
    servers, nats = page.get_by_role("region", name="Servers", exact=True), page.get_by_role("region", name="NATS servers")
    expect(servers.get_by_text("up", exact=True)).to_be_visible()
    expect(servers.get_by_text("1 of 1")).to_be_visible()
    expect(nats.get_by_text("up", exact=True)).to_be_visible()
    expect(page.get_by_role("region", name="What this server needs").get_by_text("ready", exact=True)).to_have_count(2)
    expect(page.get_by_text("No tenant is suspended.")).to_be_visible()
    suspend(visitor, "suspend", tenant)
    page.get_by_role("button", name="Read again").click()
    expect(page.get_by_text(tenant)).to_be_visible()
    assert page.get_by_text("Hidden from operators").count() == 0
    visitor.check_accessibility()
    visitor.picture("operator")
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]  # A dict with the keys of ViewportSize.
    visitor.check_accessibility()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    suspend(visitor, "resume", tenant)


def test_page_of_a_suspended_tenant_connects_again_after_it_was_resumed(visitor: Visitor) -> None:
    page, tenant = visitor.page, visitor.tenant(OWNER, "Suspended for a while")
    visitor.rest(OWNER, "POST", f"/v1/tenants/{tenant}/channels", {"name": "news"})
    visitor.sign_in(OWNER, f"/t/{tenant}/channels/news")
    visitor.expect_error("status of 403")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    suspend(visitor, "suspend", tenant)
    expect(page.get_by_role("alert")).to_contain_text("This page no longer updates: this tenant is suspended")
    visitor.check_accessibility()
    suspend(visitor, "resume", tenant)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    visitor.rest(OWNER, "POST", f"/v1/tenants/{tenant}/channels/news/messages", {"data": "after the resumption"})
    expect(page.get_by_role("button", name="after the resumption")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_page_follows_the_connections_by_itself(visitor: Visitor) -> None:
    visitor.page.clock.install()
    visitor.sign_in(OPERATOR, "/operator")
    servers = visitor.page.get_by_role("region", name="Servers", exact=True)
    expect(servers.get_by_text("up", exact=True)).to_be_visible()
    with visitor.page.expect_response(lambda answer: answer.url.endswith("/v1/operator/state")):
        visitor.page.clock.fast_forward(11_000)


def test_others_have_no_link_and_the_server_refuses_them(visitor: Visitor) -> None:
    tenant = visitor.tenant("nobody-special@example.com")
    headers: list[dict[str, str]] = []
    visitor.page.on("request", lambda request: headers.append(request.headers))
    visitor.sign_in("nobody-special@example.com", f"/t/{tenant}/agents")
    expect(visitor.page.get_by_role("heading", name="Agents")).to_be_visible()
    expect(visitor.page.get_by_role("link", name="Platform")).to_have_count(0)
    visitor.open("/operator")
    expect(visitor.page.get_by_text("Only operators of the platform see this page")).to_be_visible()
    token = next(each["authorization"] for each in headers if "authorization" in each)
    visitor.expect_error("status of 403")
    status = visitor.page.evaluate(
        "(token) => fetch('/v1/operator/state', {headers: {Authorization: token}}).then((answer) => answer.status)", token
    )
    assert status == 403


def test_operator_has_no_way_into_a_tenant(new_visitor: NewVisitor) -> None:
    visitor = new_visitor()
    tenant = visitor.tenant(OWNER)
    visitor.sign_in(OPERATOR, f"/t/{tenant}/agents")
    expect(visitor.page.get_by_text("There is no such organisation")).to_be_visible()
