"""Run a server in this process until a signal stops it, and print how to use it once it is ready."""

from __future__ import annotations

import asyncio
import gc
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import click

from artcafe.cli.installation.local_token import DEMO_USER, issue_token
from artcafe.cli.operate.demo import run_demo
from artcafe.cli.terminal.signals import INTERRUPTED, is_terminated, signals_end_process
from artcafe.config import Settings
from artcafe.observe.logs import configure
from artcafe.process_group.sizing import count_processes
from artcafe.resources import Addresses

SAME_SIGNAL_S: Final = 1.0

Serve = Callable[[asyncio.Event, Callable[[Addresses], None]], Coroutine[Any, Any, None]]
"""Serve until the event is set, and call back once the server is up."""


def run(settings: Settings, reload: Callable[[], Settings], *, embedded: bool, demo: bool) -> None:
    """Run a server until SIGINT, SIGTERM or SIGHUP, in the number of processes set in `settings`. `demo` runs the demo once it is
    ready.

    A terminal sends SIGHUP when it is closed; under nohup, which ignores SIGHUP, the server continues. Several processes are
    replaced one by one instead, unless their terminal was closed (`process_group.serve`).
    `reload` reads the settings again, for a rolling restart of several processes.
    """
    configure(settings.log_level, json=settings.log_json)
    try:
        with signals_end_process():
            import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:  # uvloop does not support this platform; the standard loop does the same, slower.
        runner = asyncio.Runner()
    with runner:
        runner.run(_serve_until_signal(settings, _server(settings, reload, embedded=embedded), demo=demo))


def _server(settings: Settings, reload: Callable[[], Settings], *, embedded: bool) -> Serve:
    """Return the coroutine function that serves, in this process or in several. Raises StartRefused if memory is too small."""
    size = count_processes(settings.processes)
    if size > 1:
        with signals_end_process():
            from artcafe.process_group.serve import serve_processes

        return lambda until, ready: serve_processes(settings, until, ready, embedded=embedded, size=size, reload=reload)
    with signals_end_process():
        from artcafe.server import serve

    return lambda until, ready: serve(settings, until, ready, embedded=embedded)


async def _serve_until_signal(settings: Settings, serve: Serve, *, demo: bool) -> None:
    """Serve until a signal, also during the start, when the server may be reading files or waiting for NATS.

    A second signal ends the server without draining it, and exits with `INTERRUPTED`. Two within `SAME_SIGNAL_S` are one: make
    and timeout pass on a signal that the process has received too.
    """
    loop, until = asyncio.get_running_loop(), asyncio.Event()
    stopped_at = float("inf")
    showing: asyncio.Task[None] | None = None

    async def show(addresses: Addresses) -> None:
        _freeze_heap()
        if demo:
            await run_demo(addresses.url, issue_token(settings, DEMO_USER), settings.data_dir / "demo")
        _print_ready(settings, addresses, after_demo=demo)

    def ready(addresses: Addresses) -> None:
        nonlocal showing
        showing = group.create_task(show(addresses))

    def stop() -> None:
        nonlocal stopped_at
        if loop.time() > stopped_at + SAME_SIGNAL_S:
            serving.cancel()
        if not until.is_set():
            stopped_at = loop.time()
            until.set()
            (showing or serving).cancel()

    async with asyncio.TaskGroup() as group:
        serving = group.create_task(serve(until, ready))
        serving.add_done_callback(lambda _: showing and showing.cancel())
        _stop_at_signals(loop, stop)
    if serving.cancelled():
        sys.exit(INTERRUPTED)


def _stop_at_signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Call `stop` at each signal that ends a server, and at once if SIGTERM has arrived before."""
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, stop)
    if is_terminated():
        stop()


def _freeze_heap() -> None:
    """Exclude the objects of the start from garbage collection, as they live as long as the process.

    Each full collection of those 100,000 objects paused the server for 50 to 200 ms, every few seconds under load.
    """
    gc.collect()
    gc.freeze()


def _why_no_metrics(settings: Settings) -> str:
    if settings.metrics_listen is None:
        return "off"
    return f"none: {settings.metrics_listen} is taken; choose another address with --metrics-listen"


def _print_ready(settings: Settings, addresses: Addresses, *, after_demo: bool) -> None:
    # Under `make run` this program is not on the PATH, and the other terminal may be in another folder.
    artcafe = "artcafe" if shutil.which("artcafe") else shlex.quote(str(Path(sys.executable).with_name("artcafe")))
    if settings.secret_file is not None:
        artcafe = f"ARTCAFE_SECRET_FILE={shlex.quote(str(settings.secret_file.absolute()))} {artcafe}"
    data = shlex.quote(str(settings.data_dir.absolute()))
    kept = data if settings.tables is None else f"{data}, its tables in {settings.tables}"
    token, is_local = f"TOKEN=$({artcafe} token --user {DEMO_USER} --data-dir {data})", settings.issuer is None
    browser = f"{artcafe} console --user {DEMO_USER} --data-dir {data}"
    if not is_local:
        token = f"TOKEN=…  # an access token of {settings.issuer}"
        browser = f"{addresses.url}/console"
    click.echo(
        f"""
ArtCafe is up. Its data is kept in {kept}. Ctrl-C stops it.

  REST     {addresses.url}            (API description: {addresses.url}/openapi.json)
  Gateway  {addresses.gateway_url}
  Metrics  {addresses.metrics_url or _why_no_metrics(settings)}

Try, in another terminal:

  {token}
  curl -s {addresses.url}/v1/me -H "Authorization: Bearer $TOKEN"

Look at it in a browser:  {browser}
"""
        + ("" if after_demo or not is_local else f"See agents at work on it:  {artcafe} demo --data-dir {data}\n")
    )
    sys.stdout.flush()
