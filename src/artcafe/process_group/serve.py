"""`serve` for several processes: opens their shared resources, and runs their supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from artcafe import plan_catalogue
from artcafe.config import Settings
from artcafe.data_dir import DataDir, make_secret, read_secret
from artcafe.fabric.accounts import Accounts
from artcafe.process_group.handover import GATEWAY, REST, Acceptor
from artcafe.process_group.supervisor import ProcessSupervisor, Shared
from artcafe.resources import Addresses, addresses_of, check_settings, listening, open_nats, open_tables
from artcafe.rules.secrets import derive


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
    plan_catalogue.read(settings.plans_file)  # Once before the processes start, so that a fault is reported once.
    folder = DataDir.acquire(settings.data_dir)
    try:
        if embedded:
            make_secret(settings.secret_path)
        accounts = Accounts(derive(read_secret(settings.secret_path), "nats"), settings.environment)
        with listening(settings.listen, "--listen") as rest, listening(settings.gateway_listen, "--gateway-listen") as gateway:
            async with open_tables(settings, make_missing=embedded):
                pass  # Each process opens them for itself; here they are made, and a wrong place stops the start early.
            async with open_nats(settings, front, accounts) as nats:
                addresses = addresses_of(settings, front, rest.getsockname()[1], gateway.getsockname()[1])

                def all_ready() -> None:
                    folder.write_server_info(addresses.url, addresses.gateway_url, settings.issuer)
                    ready(addresses)

                supervisor = ProcessSupervisor(settings, size, Shared(nats, addresses), reload)
                acceptors = [Acceptor(REST, rest, supervisor.serving), Acceptor(GATEWAY, gateway, supervisor.serving)]
                _on_hangup(supervisor.roll, until)
                await supervisor.run(acceptors, until, all_ready)
    finally:
        folder.release()


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
