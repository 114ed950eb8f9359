"""What waits on a channel: a queue's backlog, scheduled messages, and letters that fail again; and the usage of each channel."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Final

import httpx2
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from artcafe.observe.clock import now
from artcafe.sdk.agent import Agent
from artcafe.sdk.client import Client
from tests import ssh_keygen
from tests.console.conftest import NewVisitor
from tests.console.visitor import WIDE, Visitor
from tests.platform import running

OWNER: Final = "owner-of-queues@example.com"
VIEWER: Final = "viewer-of-queues@example.com"
TASKS: Final = 3
WORK_S: Final = 60
TEST_S: Final = 180.0

pytestmark = pytest.mark.timeout(TEST_S)


def fact(page: Page, name: str) -> Locator:
    """Return a value of the list above a channel's tabs."""
    return page.locator("dl.facts > div").filter(has=page.get_by_text(name, exact=True)).locator("dd")


def look(visitor: Visitor, name: str) -> None:
    visitor.check_accessibility()
    visitor.picture(name)


class Work:
    """A tenant with the queue `jobs` and the agent `worker`."""

    def __init__(self, visitor: Visitor, folder: Path, elsewhere: Executor) -> None:
        """`folder` gets the agent's key; `elsewhere` runs what needs an event loop."""
        self.visitor, self.elsewhere = visitor, elsewhere
        self.tenant = visitor.tenant(OWNER, "Working")
        self.path = f"/v1/tenants/{self.tenant}"
        self.post("/channels", {"name": "Jobs", "handle": "jobs", "type": "queue", "max_deliveries": 1})
        self.key = ssh_keygen.make_key(folder / "worker")
        self.post("/agents", {"name": "worker", "public_key": ssh_keygen.public_line(self.key)})
        visitor.rest(OWNER, "PUT", f"{self.path}/channels/jobs/subscriptions/worker", {})

    def post(self, path: str, body: object) -> dict[str, object]:
        return dict(self.visitor.rest(OWNER, "POST", self.path + path, body))

    def publish_tasks(self) -> None:
        for number in range(TASKS):
            self.post("/channels/jobs/messages", {"data": {"job": number}})

    def take(self, count: int, refused: Collection[int] = ()) -> Future[None]:
        """Let the worker take so many tasks in the background. It rejects those of these numbers, and acknowledges the others."""

        async def work() -> None:
            async with self._agent() as worker, asyncio.timeout(WORK_S):
                left = count
                async for message in worker.messages("jobs"):
                    await (message.nak(dead=True) if message.data["job"] in refused else message.ack())
                    left -= 1
                    if left == 0:
                        break

        return self.elsewhere.submit(lambda: asyncio.run(work()))

    def _agent(self) -> Agent:
        return Agent(self.visitor.platform.url, tenant=self.tenant, agent="worker", key=self.key)

    def token_of_worker(self) -> str:
        async def login() -> str:
            async with Client(self.visitor.platform.url) as rest:
                return (await rest.login(self.tenant, "worker", self.key)).access_token

        return self.elsewhere.submit(lambda: asyncio.run(login())).result(WORK_S)


@pytest.fixture
def work(visitor: Visitor, tmp_path: Path) -> Iterator[Work]:
    with ThreadPoolExecutor(1) as elsewhere:  # Playwright's event loop runs in this thread.
        yield Work(visitor, tmp_path, elsewhere)


def request(visitor: Visitor, token: str, method: str, path: str, body: object = None) -> httpx2.Response:
    return httpx2.request(
        method, visitor.platform.url + path, headers={"Authorization": f"Bearer {token}"}, json=body, timeout=30
    )


def test_queue_shows_what_waits_what_is_held_since_when_and_its_dead_letters(visitor: Visitor, work: Work) -> None:
    page = visitor.page
    visitor.sign_in(OWNER, f"/t/{work.tenant}/channels/jobs")
    expect(fact(page, "Waiting")).to_have_text("0")
    expect(fact(page, "Oldest")).to_have_text("–")
    work.publish_tasks()
    expect(fact(page, "Waiting")).to_have_text(str(TASKS))
    expect(fact(page, "Held")).to_have_text("0")
    expect(fact(page, "Oldest")).to_have_text(re.compile("just now|ago"))
    token, inbox = work.token_of_worker(), f"{work.path}/agents/worker"
    (held,) = request(visitor, token, "GET", f"{inbox}/inbox?limit=1").json()["items"]
    expect(fact(page, "Held")).to_have_text("1")
    expect(fact(page, "Waiting")).to_have_text(str(TASKS - 1))
    look(visitor, "queue")
    visitor.open(f"/t/{work.tenant}/channels")
    jobs = page.get_by_role("row").filter(has=page.get_by_role("link", name="Jobs", exact=True))
    expect(jobs.get_by_role("cell").nth(5)).to_have_text(str(TASKS))
    ack = {"channel": held["channel"], "seq": held["seq"], "receipt": held["receipt"]}
    assert request(visitor, token, "POST", f"{inbox}/acks", {"acks": [ack]}).is_success
    work.take(TASKS - 1, refused=range(TASKS)).result(WORK_S)
    visitor.open(f"/t/{work.tenant}/channels/jobs")
    expect(fact(page, "Dead letters")).to_have_text(str(TASKS - 1))
    expect(fact(page, "Waiting")).to_have_text("0")
    expect(fact(page, "Held")).to_have_text("0")


def test_redrive_until_the_first_failure_ends_at_the_letter_that_fails_again(visitor: Visitor, work: Work) -> None:
    page = visitor.page
    work.publish_tasks()
    work.take(TASKS, refused=range(TASKS)).result(WORK_S)
    visitor.sign_in(OWNER, f"/t/{work.tenant}/channels/jobs")
    page.get_by_role("tab", name="Dead letters").click()
    expect(page.get_by_text("rejected")).to_have_count(TASKS)
    redriven = work.take(2, refused={1})
    page.get_by_role("button", name="Until the first failure").click()
    ended = "1 done, 1 failed. The redrive ended at the failure; later letters stay."
    expect(page.get_by_role("status").filter(has_text=ended)).to_be_visible(timeout=WORK_S * 1000)
    redriven.result(WORK_S)
    letters = page.get_by_role("row")
    expect(page.get_by_text("rejected")).to_have_count(TASKS + 1)  # The new letter is the newest, so on top.
    for index, (job, state) in enumerate([(1, "Send back"), (2, "Send back"), (1, "failed"), (0, "done")], 1):
        expect(letters.nth(index)).to_contain_text(f'{{"job":{job}}}')
        expect(letters.nth(index).get_by_role("cell").last).to_have_text(state)
    look(visitor, "redrive-until-a-failure")
    letters.nth(1).get_by_role("button", name='{"job":1}').click()  # The marks beside it leave it room.
    expect(page.get_by_role("dialog")).to_contain_text("Sent back")


def test_scheduled_messages_are_listed_opened_by_keyboard_and_cancelled(visitor: Visitor, work: Work) -> None:
    page = visitor.page
    for hours in (2, 1):
        due = (now() + timedelta(hours=hours)).isoformat()
        work.post("/channels/jobs/messages", {"data": {"later": hours}, "deliver_at": due})
    visitor.sign_in(OWNER, f"/t/{work.tenant}/channels/jobs")
    page.get_by_role("tab", name="Messages").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    rows = page.get_by_role("table").get_by_role("row")
    expect(rows).to_have_count(3)
    expect(rows.nth(1)).to_contain_text('{"later":1}')
    look(visitor, "scheduled")
    rows.nth(2).get_by_role("button", name='{"later":2}').focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Due")
    expect(page.get_by_role("dialog").get_by_role("button", name="Answer")).to_have_count(0)
    page.keyboard.press("Escape")
    rows.nth(1).get_by_role("button", name=re.compile("^Cancel msg_")).click()
    expect(page.get_by_role("dialog")).to_contain_text("never be delivered")
    look(visitor, "cancel-a-message")
    page.get_by_role("button", name="Cancel the message").click()
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).to_contain_text('{"later":2}')
    left = visitor.rest(OWNER, "GET", f"{work.path}/channels/jobs/scheduled")["items"]
    assert [each["data"] for each in left] == [{"later": 2}]


def test_viewer_sees_scheduled_messages_and_cancels_none(new_visitor: NewVisitor, work: Work) -> None:
    visitor = new_visitor()
    page = visitor.page
    invited = visitor.rest(OWNER, "POST", f"{work.path}/members", {"address": VIEWER, "role": "viewer"})
    visitor.rest(VIEWER, "POST", "/v1/invitations/acceptances", {"token": invited["token"]})
    due = (now() + timedelta(hours=1)).isoformat()
    scheduled = work.post("/channels/jobs/messages", {"data": {"later": 1}, "deliver_at": due})
    visitor.sign_in(VIEWER, f"/t/{work.tenant}/channels/jobs")
    expect(fact(page, "Waiting")).to_have_text("0")
    page.get_by_role("tab", name="Scheduled").click()
    expect(page.get_by_role("button", name='{"later":1}')).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Cancel"))).to_have_count(0)
    path = f"{work.path}/channels/jobs/scheduled/{scheduled['message_id']}"
    refused = request(visitor, visitor.platform.token(VIEWER), "DELETE", path)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


def test_usage_is_divided_by_channel_and_by_sender(browser: Browser, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with running(tmp_path / "server") as platform, ThreadPoolExecutor(1) as elsewhere:
        context = browser.new_context(viewport=WIDE)  # type: ignore[arg-type]  # A dict with the keys of ViewportSize.
        visitor = Visitor(context.new_page(), platform, pytestconfig.getoption("--screenshots"))
        work = Work(visitor, tmp_path, elsewhere)
        work.post("/channels", {"name": "Prices", "handle": "prices", "type": "live"})
        work.publish_tasks()
        for price in range(2):
            work.post("/channels/prices/messages", {"data": price})
        work.take(TASKS).result(WORK_S)
        assert platform.stop() == 0  # It writes what it counted; parts of stored messages trail by 10 minutes.
        platform.start()
        page = visitor.page
        visitor.sign_in(OWNER, f"/t/{work.tenant}/usage")
        table = page.get_by_role("region", name="Usage of this month, divided").get_by_role("row")
        expect(table.filter(has_text="prices").get_by_role("cell").nth(2)).to_have_text("2")
        expect(table.filter(has_text="jobs").get_by_role("cell").nth(3)).to_have_text(str(TASKS))
        look(visitor, "usage-by-channel")
        page.get_by_label("Divided", exact=True).select_option("By agent or person")
        expect(table.filter(has_text=OWNER).get_by_role("cell").nth(2)).to_have_text("2")
        expect(table.filter(has_text="worker").get_by_role("cell").nth(3)).to_have_text(str(TASKS))
        page.context.close()
        visitor.check()
