"""A server in this process, from its start to the signal that stops it, and what it prints when it is up."""

from __future__ import annotations

import asyncio
import gc
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from artcafe.cli.installation.local_token import DEMO_USER, issue_token
from artcafe.cli.operate.demo import run_demo
from artcafe.config import Settings
from artcafe.observe.logs import configure
from artcafe.process_group.sizing import count_processes
from artcafe.resources import Addresses

Serve = Callable[[asyncio.Event, Callable[[Addresses], None]], Coroutine[Any, Any, None]]
"""Serve until the event is set, and call back once the server is up."""


def run(settings: Settings, reload: Callable[[], Settings], *, embedded: bool, demo: bool) -> None:
    """Run a server until SIGINT or SIGTERM, in as many processes as `settings` say. `demo` plays the demo once it is up.

    `reload` reads the settings again, for a rolling restart of several processes.
    """
    configure(settings.log_level, json=settings.log_json)
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:  # not made for this platform; the standard loop does the same, slower
        runner = asyncio.Runner()
    with runner:
        runner.run(_serve_until_signal(settings, _server(settings, reload, embedded=embedded), demo=demo))


def _server(settings: Settings, reload: Callable[[], Settings], *, embedded: bool) -> Serve:
    """Return what serves, here or in several processes. Raises `StartRefused` for more than memory allows."""
    size = count_processes(settings.processes)
    if size > 1:
        from artcafe.process_group.serve import serve_processes

        return lambda until, ready: serve_processes(settings, until, ready, embedded=embedded, size=size, reload=reload)
    from artcafe.server import serve

    return lambda until, ready: serve(settings, until, ready, embedded=embedded)


async def _serve_until_signal(settings: Settings, serve: Serve, *, demo: bool) -> None:
    """Serve until a signal, which also ends a server that has not come up yet: it may be reading files or waiting for NATS."""
    loop, until = asyncio.get_running_loop(), asyncio.Event()
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
        until.set()
        (showing or serving).cancel()

    async with asyncio.TaskGroup() as group:
        serving = group.create_task(serve(until, ready))
        serving.add_done_callback(lambda _: showing and showing.cancel())
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)


def _freeze_heap() -> None:
    """What the start has made lives as long as the process, so the garbage collector need not look at it again: each full
    collection of those 100,000 objects stopped everybody for 50 to 200 ms, every few seconds under load."""
    gc.collect()
    gc.freeze()


def _print_ready(settings: Settings, addresses: Addresses, *, after_demo: bool) -> None:
    # Under `make run` this program is in no PATH, and the other terminal may stand in another folder.
    artcafe = "artcafe" if shutil.which("artcafe") else shlex.quote(str(Path(sys.executable).with_name("artcafe")))
    if settings.secret_file is not None:
        artcafe = f"ARTCAFE_SECRET_FILE={shlex.quote(str(settings.secret_file.absolute()))} {artcafe}"
    data = shlex.quote(str(settings.data_dir.absolute()))
    kept = data if settings.tables is None else f"{data}, its tables in {settings.tables},"
    token, is_local = f"TOKEN=$({artcafe} token --user {DEMO_USER} --data-dir {data})", settings.issuer is None
    if not is_local:
        token = f"TOKEN=…  # an access token of {settings.issuer}"
    click.echo(
        f"""
ArtCafe is up. Its data is in {kept} and stays there; Ctrl-C stops it.

  REST     {addresses.url}            (its routes: {addresses.url}/openapi.json)
  Gateway  {addresses.gateway_url}

Try, in another terminal:

  {token}
  curl -s {addresses.url}/v1/me -H "Authorization: Bearer $TOKEN"
"""
        + ("" if after_demo or not is_local else f"\nSee the main job played on it:  {artcafe} demo --data-dir {data}\n")
    )
    sys.stdout.flush()
