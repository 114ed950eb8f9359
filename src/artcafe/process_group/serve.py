"""`serve` for several processes: opens their shared resources, and runs their supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from artcafe.config import Settings
from artcafe.data_dir import DataDir, make_secret, read_secret
from artcafe.fabric.accounts import Accounts
from artcafe.monitoring.listener import MetricsListener
from artcafe.monitoring.process_gauges import run_process_gauges
from artcafe.observe import metrics
from artcafe.observe.loop_delay import LoopDelay
from artcafe.process_group.handover import GATEWAY, REST, Acceptor
from artcafe.process_group.supervisor import ProcessSupervisor, Shared
from artcafe.resources import (
    Addresses,
    addresses_of,
    check_settings,
    listening,
    listening_for_metrics,
    metrics_url_of,
    open_nats,
    open_plans,
    open_tables,
)
from artcafe.rules.secrets import derive
from artcafe.supervision import keep_all


async def serve_processes(
    settings: Settings,
    until: asyncio.Event,
    ready: Callable[[Addresses], None],
    *,
    embedded: bool,
    size: int,
    reload: Callable[[], Settings],
) -> None:
    """Run `size` server processes until the event is set, then end them in order. SIGHUP replaces them one by one, and ends them
    if it comes because our terminal was closed.

    `ready` is called once, when every process serves. `embedded` is as for `server.serve`, and so are the errors; `reload` reads
    the settings again for a rolling restart.
    """
    front = check_settings(settings, embedded=embedded)
    open_plans(settings)  # Once before the processes start, so that a fault is reported once.
    folder = DataDir.acquire(settings.data_dir)
    try:
        if embedded:
            make_secret(settings.secret_path)
        accounts = Accounts(derive(read_secret(settings.secret_path), "nats"), settings.environment)
        with (
            listening(settings.listen, "--listen") as rest,
            listening(settings.gateway_listen, "--gateway-listen") as gateway,
            listening_for_metrics(settings) as scraped,
        ):
            async with open_tables(settings, make_missing=embedded) as tables:
                denied = tables.denied  # Each process opens them for itself; here they are made, and their permissions are tried.
            async with open_nats(settings, front, accounts) as nats:
                addresses = addresses_of(
                    settings,
                    front,
                    rest.getsockname()[1],
                    gateway.getsockname()[1],
                    metrics_url_of(settings, scraped),
                )

                def all_ready() -> None:
                    folder.write_server_info(addresses.url, addresses.gateway_url, settings.issuer, addresses.metrics_url)
                    ready(addresses)

                supervisor = ProcessSupervisor(settings, size, Shared(nats, addresses, denied), reload)
                acceptors = [Acceptor(REST, rest, supervisor.serving), Acceptor(GATEWAY, gateway, supervisor.serving)]
                _on_hangup(supervisor.roll, until)
                await supervisor.run(acceptors, until, all_ready, _metrics_loops(settings, scraped, supervisor))
    finally:
        folder.release()


def _metrics_loops(
    settings: Settings, scraped: socket.socket | None, supervisor: ProcessSupervisor
) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    """Return the loops that measure the supervisor and serve the metrics of the group."""
    metrics.CELLS.name_tenants(settings.metrics_tenants)
    if scraped is None:
        return []
    loops = {
        "metrics": MetricsListener(scraped, supervisor.metrics_text).run,
        "process_gauges": run_process_gauges,
        "loop_delay": LoopDelay(metrics.LOOP_DELAY.of().set).run,
    }
    return [partial(keep_all, loops)]


def _on_hangup(roll: Callable[[], None], until: asyncio.Event) -> None:
    """Call `roll` at SIGHUP. At the SIGHUP of a closed terminal set `until` instead, or do nothing under nohup."""
    had_terminal, has_nohup = _has_terminal(), signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    def hang_up() -> None:
        nonlocal had_terminal
        if not had_terminal or _has_terminal():
            roll()
        elif has_nohup:
            had_terminal = False
        else:
            until.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
