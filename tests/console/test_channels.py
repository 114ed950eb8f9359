"""The screens of channels, messages, dead letters, conversations, usage and the audit, on a furnished tenant."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.console.conftest import NewVisitor
from tests.console.furnished import AGENTS, BEHIND, LETTERS, MARKUP, RIGHT_TO_LEFT, Furnished, furnish
from tests.console.visitor import NARROW, WIDE, Visitor
from tests.platform import Platform, running

OWNER: Final = "owner@example.com"


@pytest.fixture(scope="module")
def furnished(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Furnished:
    keys = tmp_path_factory.mktemp("keys")
    with ThreadPoolExecutor(1) as elsewhere:  # Playwright's event loop runs in this thread.
        return elsewhere.submit(lambda: asyncio.run(furnish(platform.url, platform.token(OWNER), keys))).result()


def row(page: Page, text: str) -> Locator:
    """Return the row of a table with this text."""
    return page.get_by_role("row").filter(has_text=text)


def look(visitor: Visitor, name: str) -> None:
    """Check the accessibility of what is shown, and take its pictures."""
    visitor.check_accessibility()
    visitor.picture(name)


def test_agents_are_listed_with_presence_and_found_by_capability(visitor: Visitor, furnished: Furnished) -> None:
    page = visitor.page
    visitor.sign_in(OWNER, f"/t/{furnished.tenant}/agents")
    for agent in AGENTS:
        expect(row(page, agent)).to_contain_text("away")
    look(visitor, "agents-of-a-tenant")
    page.get_by_label("Capability").fill("images")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name=AGENTS[0], exact=True)).to_have_count(0)


def test_channels_show_their_last_message_and_who_is_behind(visitor: Visitor, furnished: Furnished) -> None:
    page = visitor.page
    visitor.sign_in(OWNER, f"/t/{furnished.tenant}/channels")
    expect(row(page, "News")).to_contain_text(str(BEHIND))
    expect(row(page, "News")).to_contain_text("critic")
    expect(page.get_by_role("link", name=MARKUP[:64])).to_be_visible()
    expect(page.get_by_role("link", name=RIGHT_TO_LEFT)).to_be_visible()
    look(visitor, "channels")
    page.get_by_label("Search").fill("jobs")
    expect(row(page, "News")).to_have_count(0)
    expect(page.get_by_role("link", name="jobs.dead")).to_be_visible()


def test_channel_is_created_changed_and_deleted(visitor: Visitor, furnished: Furnished) -> None:
    page = visitor.page
    visitor.sign_in(OWNER, f"/t/{furnished.tenant}/channels")
    page.get_by_role("button", name="Create a channel").click()
    page.get_by_label("Name", exact=True).fill("Errands")
    page.get_by_label("Type").select_option("queue")
    page.get_by_label("Seconds between deliveries").fill("soon")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_text("Type whole numbers of seconds")).to_be_visible()
    look(visitor, "create-a-channel")
    page.get_by_label("Seconds between deliveries").fill("1, 10")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("heading", name="Errands")).to_be_visible()
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Name", exact=True).fill("Chores")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Chores")).to_be_visible()
    page.get_by_role("tab", name="Settings").click()
    expect(page.get_by_text("1, 10 s")).to_be_visible()
    look(visitor, "channel-settings")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Channels")).to_be_visible()
    expect(page.get_by_text("Chores")).to_have_count(0)


def test_hostile_message_is_shown_as_text(visitor: Visitor, furnished: Furnished) -> None:
    page = visitor.page
    visitor.sign_in(OWNER, f"/t/{furnished.tenant}/channels/markup")
    page.get_by_role("button", name="html").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text(f'"{MARKUP}"'.replace('"w', '\\"w').replace('1"', '1\\"')).first).to_be_visible()
    expect(dialog.get_by_text("x-markup")).to_be_visible()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, main script").count() == 0
    look(visitor, "message")


def publish(visitor: Visitor, tenant: str, channel: str, number: int) -> None:
    visitor.rest(OWNER, "POST", f"/v1/tenants/{tenant}/channels/{channel}/messages", {"data": {"live": number}})


def shown(page: Page) -> list[int]:
    """Return the numbers of the messages that the page shows, from the top."""
    return [int(each) for each in re.findall(r'"live":(\d+)', page.get_by_role("table").inner_text())]


def test_new_messages_appear_unless_paused(visitor: Visitor) -> None:
    page = visitor.page
    tenant = visitor.tenant(OWNER, "Watched")
    visitor.rest(OWNER, "POST", f"/v1/tenants/{tenant}/channels", {"name": "Ticks", "handle": "ticks"})
    visitor.rest(OWNER, "POST", f"/v1/tenants/{tenant}/channels", {"name": "Flashes", "handle": "flashes", "type": "live"})
    visitor.sign_in(OWNER, f"/t/{tenant}/channels/ticks")
    expect(page.get_by_text("No message yet")).to_be_visible()
    publish(visitor, tenant, "ticks", 1)
    expect(page.get_by_role("button", name='{"live":1}')).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    publish(visitor, tenant, "ticks", 2)
    expect(page.get_by_text("Paused: 1 new")).to_be_visible()
    assert shown(page) == [1]
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("button", name='{"live":2}')).to_be_visible()
    assert shown(page) == [2, 1]
    visitor.open(f"/t/{tenant}/channels/flashes")
    expect(page.get_by_text("No message yet")).to_be_visible()
    publish(visitor, tenant, "flashes", 3)
    expect(page.get_by_role("button", name='{"live":3}')).to_be_visible()


def test_no_message_is_missing_or_shown_twice_after_the_server_was_killed(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        visitor = Visitor(browser.new_context(viewport=WIDE).new_page(), platform)  # type: ignore[arg-type]  # A dict with the keys of ViewportSize.
        visitor.expect_error("Failed to load resource|WebSocket connection")
        tenant = visitor.tenant(OWNER)
        visitor.rest(OWNER, "POST", f"/v1/tenants/{tenant}/channels", {"name": "Ticks", "handle": "ticks"})
        publish(visitor, tenant, "ticks", 0)
        visitor.sign_in(OWNER, f"/t/{tenant}/channels/ticks")
        expect(visitor.page.get_by_text("Live", exact=True)).to_be_visible()
        expect(visitor.page.get_by_role("button", name='{"live":0}')).to_be_visible()
        for kill in (1, 2):
            platform.kill()
            expect(visitor.page.get_by_text("Reconnecting")).to_be_visible()
            platform.start()
            for number in range(10):
                publish(visitor, tenant, "ticks", 10 * kill + number)
            expect(visitor.page.get_by_role("button", name=f'{{"live":{10 * kill + 9}}}')).to_be_visible()
            expect(visitor.page.get_by_text("Live", exact=True)).to_be_visible()
        assert shown(visitor.page) == [*range(29, 9, -1), 0]
        visitor.page.context.close()
        visitor.check()


def test_history_begins_at_a_typed_place_and_acknowledges_nothing(visitor: Visitor, furnished: Furnished) -> None:
    page = visitor.page
    visitor.sign_in(OWNER, f"/t/{furnished.tenant}/channels/news")
    page.get_by_label("From").fill("yesterday")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Type a sequence")).to_be_visible()
    page.get_by_label("From").fill("first")
    page.keyboard.press("Enter")
    expect(page.get_by_role("row").nth(1)).to_contain_text('"n":0')
    page.get_by_label("From").fill("1h")
    page.keyboard.press("Enter")
    expect(page.get_by_role("row").nth(1)).to_contain_text('"n":0')
    look(visitor, "history")
    page.get_by_role("button", name="Back to the newest").click()
    expect(page.get_by_role("row").nth(1)).to_contain_text(f'"n":{BEHIND - 1}')
    page.get_by_role("tab", name="Subscriptions").click()
    expect(row(page, "critic")).to_contain_text(str(BEHIND))


def test_publish_box_refuses_what_is_not_json_and_shows_receipts(visitor: Visitor, furnished: Furnished) -> None:
    page = visitor.page
    visitor.sign_in(OWNER, f"/t/{furnished.tenant}/channels/results")
    page.get_by_role("button", name="Publish", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Data", exact=True).fill("{not json}")
    dialog.get_by_text("Key, headers, answers").click()
    dialog.get_by_label("Headers").fill("edition: 2\nno colon")
    dialog.get_by_role("button", name="Publish to results").click()
    expect(dialog.get_by_text("This is not JSON")).to_be_visible()
    expect(dialog.get_by_text('"no colon" is not of the form')).to_be_visible()
    dialog.get_by_label("Data", exact=True).fill('{"by": "hand"}')
    dialog.get_by_label("Headers").fill("edition: 2")
    dialog.get_by_role("button", name="Publish to results").click()
    expect(dialog.get_by_text("It is on disk")).to_be_visible()
    expect(dialog.get_by_role("listitem").filter(has_text="planner")).to_contain_text("away")
    look(visitor, "publish")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name='{"by":"hand"}')).to_be_visible()


def test_subscription_is_paused_resumed_and_moved(visitor: Visitor, furnished: Furnished) -> None:
    page = visitor.page
    visitor.sign_in(OWNER, f"/t/{furnished.tenant}/channels/work-log")
    page.get_by_role("tab", name="Subscriptions").click()
    page.get_by_role("button", name="Pause researcher").click()
    expect(row(page, "researcher")).to_contain_text("paused")
    page.get_by_role("button", name="Resume researcher").click()
    expect(row(page, "researcher")).to_contain_text("active")
    look(visitor, "subscriptions")
    page.get_by_role("button", name="Move the cursor of researcher").click()
    page.get_by_label("Deliver from").fill("never")
    page.get_by_role("button", name="Move", exact=True).click()
    expect(page.get_by_text("Type a sequence")).to_be_visible()
    look(visitor, "move-the-cursor")
    page.get_by_label("Deliver from").fill("last")
    page.keyboard.press("Enter")
    expect(row(page, "researcher").get_by_role("cell").nth(4)).to_have_text("0")


def test_dead_letters_are_sent_back(visitor: Visitor, furnished: Furnished) -> None:
    page = visitor.page
    visitor.sign_in(OWNER, f"/t/{furnished.tenant}/channels/jobs")
    page.get_by_role("tab", name="Dead letters").click()
    expect(page.get_by_text("rejected")).to_have_count(LETTERS)
    page.get_by_role("button", name=re.compile("^Send back")).last.click()
    expect(page.get_by_text("redriven", exact=True)).to_have_count(1)
    page.get_by_role("button", name="Send all back").click()
    expect(page.get_by_role("status").filter(has_text=f"{LETTERS - 1} redriven")).to_be_visible()
    look(visitor, "dead-letters")


def test_conversation_is_found_over_channels_and_grows(visitor: Visitor, furnished: Furnished) -> None:
    page = visitor.page
    visitor.sign_in(OWNER, f"/t/{furnished.tenant}/channels/results")
    page.get_by_role("button", name="About 300 metres").click()
    page.get_by_role("link", name="Show the conversation").click()
    items = page.get_by_role("listitem").filter(has=page.get_by_role("button"))
    expect(items).to_have_count(4)
    assert ["question" in items.nth(0).inner_text(), "criticism" in items.nth(3).inner_text()] == [True, True]
    look(visitor, "conversation")
    answer = {"data": {"correction": "330"}, "caused_by": furnished.question}
    visitor.rest(OWNER, "POST", f"/v1/tenants/{furnished.tenant}/channels/results/messages", answer)
    expect(items).to_have_count(5)


def test_stopped_conversation_is_released(visitor: Visitor, furnished: Furnished) -> None:
    page = visitor.page
    visitor.sign_in(OWNER, f"/t/{furnished.tenant}/conversations")
    expect(row(page, furnished.stopped)).to_contain_text("stopped")
    look(visitor, "conversations")
    page.get_by_role("link", name=furnished.stopped).click()
    page.get_by_role("button", name="Release the chain").click()
    expect(page.get_by_text("active", exact=True)).to_be_visible()


def test_usage_has_plots_and_limits(visitor: Visitor, furnished: Furnished) -> None:
    page = visitor.page
    visitor.sign_in(OWNER, f"/t/{furnished.tenant}/usage")
    plot = page.get_by_role("group", name=re.compile("^Messages:"))
    plot.focus()
    page.keyboard.press("ArrowLeft")
    expect(plot).to_contain_text(re.compile(r"\d\d:\d\d: "))
    expect(row(page, "Messages a minute")).to_be_visible()
    page.get_by_label("Time").select_option("30 days")
    expect(page.get_by_role("group", name="Connections at once:")).to_be_visible()
    look(visitor, "usage")


def test_audit_is_filtered_and_checked(visitor: Visitor, furnished: Furnished) -> None:
    page = visitor.page
    visitor.sign_in(OWNER, f"/t/{furnished.tenant}/audit")
    page.get_by_role("button", name="Check the chain").click()
    expect(page.get_by_text(re.compile(r"All \d+ entries are unchanged"))).to_be_visible()
    look(visitor, "audit")
    page.get_by_role("button", name="Refused logins").click()
    expect(page.get_by_role("row").nth(1)).to_contain_text("unknown_key")
    expect(page.get_by_role("row").filter(has_text="done")).to_have_count(0)
    page.get_by_label("Since").fill("tomorrow")
    expect(page.get_by_text("Type a time")).to_be_visible()


def test_viewer_reads_and_changes_nothing(new_visitor: NewVisitor, furnished: Furnished) -> None:
    viewer = "viewer@example.com"
    visitor = new_visitor()
    page = visitor.page
    invited = visitor.rest(OWNER, "POST", f"/v1/tenants/{furnished.tenant}/members", {"address": viewer, "role": "viewer"})
    visitor.rest(viewer, "POST", "/v1/invitations/acceptances", {"token": invited["token"]})
    visitor.sign_in(viewer, f"/t/{furnished.tenant}/channels/jobs")
    page.get_by_role("tab", name="Dead letters").click()
    expect(page.get_by_text("rejected")).to_have_count(LETTERS)
    for name in ("Publish", "Edit", "Delete", "Send all back"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    visitor.open(f"/t/{furnished.tenant}/usage")
    expect(row(page, "Messages a minute")).to_be_visible()
    expect(page.get_by_role("group", name=re.compile("^Messages:"))).to_have_count(0)
    visitor.open(f"/t/{furnished.tenant}/audit")
    expect(page.get_by_text("Your role does not see this page")).to_be_visible()


def test_stranger_sees_nothing_of_the_tenant(visitor: Visitor, furnished: Furnished) -> None:
    page = visitor.page
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]  # A dict with the keys of ViewportSize.
    for path in ("channels", "channels/news", f"conversations/{furnished.question}", "usage", "audit"):
        visitor.sign_in("stranger@example.com", f"/t/{furnished.tenant}/{path}")
        expect(page.get_by_text("There is no such organisation")).to_be_visible()
