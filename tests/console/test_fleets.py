"""The console in front of several server processes, and of several servers: a green agent, and messages without a gap."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx2
import pytest
from playwright.sync_api import Browser, Page, WebSocket, expect

from artcafe.data_dir import read_secret
from artcafe.identity.local import LocalIdentity
from artcafe.observe.clock import now
from artcafe.rules.secrets import derive
from tests import ssh_keygen
from tests.children import plain_environ, started_with_parent
from tests.console.visitor import WIDE, Visitor
from tests.fleet import Fleet, running_fleet
from tests.platform import Platform, running
from tests.process_group.groups import PROCESSES, kill, wait_until_all_serve, worker_pids

OWNER: Final = "owner-of-a-fleet@example.com"
ATTEMPTS: Final = 20
PROGRAM: Final = """
import asyncio
from artcafe.sdk.agent import Agent

async def main():
    async with Agent({url!r}, tenant={tenant!r}, agent="scout", key={key!r}) as agent:
        async for message in agent.messages():
            await message.ack()

asyncio.run(main())
"""

pytestmark = pytest.mark.timeout(240)


class FleetPlatform(Platform):
    """The first server of a fleet, with tokens of the local identity that all its servers share."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet.folder, secret=fleet.nats.secret)
        self.url = fleet.url

    def token(self, user: str) -> str:
        return LocalIdentity(derive(read_secret(self.secret), "local-identity")).issue(user, now())


def open_page(browser: Browser, platform: Platform) -> Visitor:
    return Visitor(browser.new_context(viewport=WIDE).new_page(), platform)  # type: ignore[arg-type]  # A dict with the keys of ViewportSize.


@contextmanager
def scout(tenant: str, url: str, folder: Path) -> Iterator[None]:
    """Run the agent `scout` at this address within the block."""
    program = PROGRAM.format(url=url, tenant=tenant, key=str(folder / "scout"))
    process = started_with_parent((sys.executable, "-c", program), cwd=folder, env=plain_environ(), stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def publish(visitor: Visitor, tenant: str, number: int, url: str) -> None:
    """Store a number in `ticks`. Its key makes a retry safe while a process is killed."""
    headers = {"Authorization": f"Bearer {visitor.platform.token(OWNER)}"}
    path = f"{url}/v1/tenants/{tenant}/channels/ticks/messages"
    body = {"data": {"live": number}, "key": f"tick-{number}"}
    for _ in range(ATTEMPTS):
        try:
            answer = httpx2.post(path, headers=headers, json=body, timeout=30)
        except httpx2.TransportError:
            continue
        if answer.status_code == 201:
            return
        assert answer.status_code == 503, answer.text
    pytest.fail(f"{number} was not stored in {ATTEMPTS} attempts")


def expect_numbers(page: Page, count: int) -> None:
    """Expect the numbers from `count - 1` down to 0, each once."""
    expect(page.get_by_role("button", name=f'{{"live":{count - 1}}}')).to_be_visible()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    shown = re.findall(r'"live":(\d+)', page.get_by_role("table").inner_text())
    assert [int(each) for each in shown] == list(range(count - 1, -1, -1))


def watch(visitor: Visitor, folder: Path) -> str:
    """Create a tenant with the channel `ticks` and the agent `scout`, whose key is in `folder`, and sign in. Return its id."""
    tenant = visitor.tenant(OWNER)
    key = ssh_keygen.public_line(ssh_keygen.make_key(folder / "scout"))
    visitor.rest(OWNER, "POST", f"/v1/tenants/{tenant}/agents", {"name": "scout", "public_key": key})
    visitor.rest(OWNER, "POST", f"/v1/tenants/{tenant}/channels", {"name": "Ticks", "handle": "ticks"})
    visitor.sign_in(OWNER, f"/t/{tenant}/agents")
    return tenant


def expect_green(page: Page) -> None:
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="scout"))
    expect(row.get_by_text("connected", exact=True)).to_be_visible()


def test_killed_process_of_two_leaves_no_gap_in_the_live_view(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path / "server", PROCESSES) as platform:
        visitor = open_page(browser, platform)
        visitor.expect_error("Failed to load resource|WebSocket connection")
        sockets: list[WebSocket] = []
        visitor.page.on("websocket", lambda socket: sockets.append(socket))  # noqa: PLW0108 (Playwright sets an attribute of the function)
        tenant = watch(visitor, tmp_path)
        with scout(tenant, platform.url, tmp_path):
            expect_green(visitor.page)
            visitor.open(f"/t/{tenant}/channels/ticks")
            expect(visitor.page.get_by_text("No message yet")).to_be_visible()
            for victim in (1, 2):  # The page is connected to one of them.
                for number in range(10 * (victim - 1), 10 * victim):
                    if number % 10 == 5:
                        kill(worker_pids(platform)[victim])
                    publish(visitor, tenant, number, platform.url)
                expect_numbers(visitor.page, 10 * victim)
                wait_until_all_serve(platform)
            assert len(sockets) > 1, "the killed process had the page's connection"
            visitor.open(f"/t/{tenant}/agents")
            expect_green(visitor.page)
        visitor.page.context.close()
        visitor.check()


def test_page_of_one_server_shows_agents_and_messages_of_another(browser: Browser, tmp_path: Path) -> None:
    with running_fleet(tmp_path / "fleet") as fleet:
        first, second = fleet.servers
        assert first.url != second.url
        visitor = open_page(browser, FleetPlatform(fleet))
        tenant = watch(visitor, tmp_path)
        with scout(tenant, second.url, tmp_path):
            expect_green(visitor.page)
        visitor.open(f"/t/{tenant}/channels/ticks")
        expect(visitor.page.get_by_text("No message yet")).to_be_visible()
        for number in range(10):
            publish(visitor, tenant, number, (first.url, second.url)[number % 2])
        expect_numbers(visitor.page, 10)
        visitor.page.context.close()
        visitor.check()
