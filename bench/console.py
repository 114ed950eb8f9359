"""The console in Chromium: a tenant with 1,000 agents and a channel of 10,000 messages, beside one with one of each.

Each round opens the console in a new browser context, without a cache, with a one-use code. *Shown* is when the screen's first
row is there. *Interactive* is when the page answers from then on: the end of the last task of more than 50 ms (W3C Long Tasks)
before a second without any. Both begin with the request of the page, or with the change of the address. Then the full channel is
scrolled from its newest message to its oldest, 600 pixels a frame, while the older pages are read. Browser, server and NATS share
the machine.
"""

from __future__ import annotations

import shutil
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from playwright.async_api import Browser, Page, async_playwright

from artcafe.sdk.client import Client
from bench.bench_env import BenchEnv, bench_env, largest_plan
from bench.deliver import publish_all
from bench.publish import DATA
from bench.raw_client import Publisher
from bench.report import Options, Table
from tests.platform import Cast

AGENTS: Final = 1_000
MESSAGES: Final = 10_000
TIMEOUT_MS: Final = 60_000.0
FRAME_MS: Final = 50.0
"""A longer frame is one that a person sees as a jerk; a task of this length is a long one."""

WATCH: Final = """
window.longTasks = [];
new PerformanceObserver((list) => {
  for (const each of list.getEntries()) window.longTasks.push([each.startTime, each.startTime + each.duration]);
}).observe({type: "longtask", buffered: true});
"""
SETTLE: Final = """
([rows, since]) => new Promise((resolve) => {
  let shown = null;
  const look = () => {
    const now = performance.now();
    if (shown === null && document.querySelectorAll(rows).length > 0) shown = now;
    const busy = Math.max(0, ...window.longTasks.map(([, end]) => end).filter((end) => end > since));
    if (shown !== null && now - Math.max(shown, busy) > 1000) resolve([shown - since, Math.max(shown, busy) - since]);
    else requestAnimationFrame(look);
  };
  look();
})
"""
"""Return the milliseconds until the first row was shown, and until the page was interactive."""
SCROLL: Final = """
(count) => new Promise((resolve) => {
  const frames = [];
  const began = performance.now();
  let last = null;
  const step = (now) => {
    if (last !== null) frames.push(now - last);
    last = now;
    const last_row = document.querySelector(`tr[aria-rowindex="${count + 1}"]`);
    const gone = window.scrollY + window.innerHeight >= document.documentElement.scrollHeight - 1;
    if (last_row !== null && gone) resolve([performance.now() - began, frames]);
    else { window.scrollBy(0, 600); requestAnimationFrame(step); }
  };
  requestAnimationFrame(step);
})
"""
"""Scroll until the last of `count` rows is in view, and return the milliseconds and the duration of each frame."""
ROWS: Final = "tbody tr:not(.space)"


@dataclass(frozen=True, slots=True)
class _Opened:
    """Milliseconds from the beginning until a screen was shown, and until it was interactive."""

    shown: float
    interactive: float


async def run(options: Options) -> list[Table]:
    """Return the tables. Raise `RuntimeError` without Chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise RuntimeError("this bench needs Chromium: apt-get install chromium")
    opened: dict[tuple[str, str], list[_Opened]] = defaultdict(list)
    scrolls: list[tuple[float, list[float]]] = []
    async with bench_env(options, flags=largest_plan(options)) as env, async_playwright() as playwright:
        casts = {"small": await _tenant(env, 1, 1), "full": await _tenant(env, AGENTS, MESSAGES)}
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(options.rounds):
            for size, cast in casts.items():
                agents, channel, scrolled = await _visit(browser, env, cast, MESSAGES if size == "full" else None)
                opened["agents", size].append(agents)
                opened["channel", size].append(channel)
                scrolls += [] if scrolled is None else [scrolled]
        await browser.close()
    return [_opening(opened, options.rounds), _scrolling(scrolls)]


async def _tenant(env: BenchEnv, agents: int, messages: int) -> Cast:
    cast = await env.platform.tenant_with(agents=agents, subscribed=False)
    line = await env.line(cast, await env.token(cast))
    await publish_all(Publisher(line, cast.channels[0], DATA), messages)
    line.transport.close()
    return cast


async def _visit(
    browser: Browser, env: BenchEnv, cast: Cast, messages: int | None
) -> tuple[_Opened, _Opened, tuple[float, list[float]] | None]:
    """Open the agents and the channel, and scroll through its messages, if their number is given."""
    async with Client(env.platform.url, cast.token) as rest:
        code = (await rest.create_console_code()).code
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    page = await context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    await page.add_init_script(WATCH)
    await page.goto(f"{env.platform.url}/console#code={code}", wait_until="commit")
    agents = await _settle(page, 0)
    since = await page.evaluate(
        "(hash) => { window.location.hash = hash; return performance.now(); }", f"/t/{cast.tenant}/channels/{cast.channels[0]}"
    )
    await page.wait_for_selector(f"[aria-label^='Messages'] {ROWS}")
    channel = await _settle(page, since)
    scrolled = None if messages is None else await page.evaluate(SCROLL, messages)
    await context.close()
    return agents, channel, None if scrolled is None else (scrolled[0], scrolled[1])


async def _settle(page: Page, since: float) -> _Opened:
    shown, interactive = await page.evaluate(SETTLE, [ROWS, since])
    return _Opened(shown, interactive)


def _opening(opened: Mapping[tuple[str, str], Sequence[_Opened]], rounds: int) -> Table:
    table = Table(
        f"Screens of the console with {AGENTS:,} agents and {MESSAGES:,} messages, and with one of each",
        ["screen", "one: shown / interactive", "many: shown / interactive", "interactive, many to one"],
        [f"Medians of {rounds} rounds, in milliseconds."],
    )
    for screen, begins in (("agents", "the page is requested"), ("channel", "its address is entered")):
        small, full = opened[screen, "small"], opened[screen, "full"]
        ratio = statistics.median(many.interactive / one.interactive for many, one in zip(full, small, strict=True))
        table.rows.append([f"{screen}, since {begins}", _medians(small), _medians(full), f"{ratio:.2f}×"])
    return table


def _medians(opened: Sequence[_Opened]) -> str:
    return (
        f"{statistics.median(each.shown for each in opened):,.0f} / {statistics.median(each.interactive for each in opened):,.0f}"
    )


def _scrolling(scrolls: Sequence[tuple[float, list[float]]]) -> Table:
    frames = sorted(frame for _, each in scrolls for frame in each)
    table = Table(
        f"Scrolling through {MESSAGES:,} messages",
        ["seconds", "frames", "p50 of a frame", "p99", "longest", f"longer than {FRAME_MS:.0f} ms"],
        ["Seconds: median of the rounds. Frames: those of all rounds, in milliseconds."],
    )
    seconds = statistics.median(each for each, _ in scrolls) / 1000
    quantiles = [f"{frames[min(len(frames) - 1, int(len(frames) * part))]:.1f}" for part in (0.5, 0.99, 1)]
    table.rows.append([f"{seconds:.1f}", f"{len(frames):,}", *quantiles, str(sum(frame > FRAME_MS for frame in frames))])
    return table
