"""`artcafe nats check`: whether every NATS server has each stream completely, so that another one may be stopped."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import click

from artcafe import config
from artcafe.cli.operate.operator_context import UP_S, open_nats
from artcafe.cli.terminal.exit_codes import DIFFERENT, ArtcafeCommand
from artcafe.cli.terminal.output import align, as_text, counted
from artcafe.cli.terminal.output import as_json as to_json
from artcafe.config import Settings
from artcafe.data_dir import read_secret
from artcafe.errors import OurFault, Unavailable
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.nats.stream_copies import ServerCopies, StreamCopies, check_copies
from artcafe.observe.logs import configure
from artcafe.rules.secrets import derive

HEADINGS: Final = ("NATS", "COMPLETE", "STREAMS", "BEHIND", "PROBLEM")

_PATH: Final = click.Path(path_type=Path)


@click.command(cls=ArtcafeCommand)
@click.option("--nats-urls", metavar="URLS", help="Addresses of the NATS servers, separated by commas.  [env: ARTCAFE_NATS_URLS]")
@click.option("--nats-ca", type=_PATH, metavar="FILE", help="The authority of their certificates.  [env: ARTCAFE_NATS_CA]")
@click.option("--secret-file", type=_PATH, metavar="FILE", help="The fleet's secret.  [env: ARTCAFE_SECRET_FILE]")
@click.option("--environment", metavar="WORD", help="prod or dev.  [env: ARTCAFE_ENVIRONMENT; default: prod]")
@click.option("--data-dir", type=_PATH, metavar="DIR", help="The data folder of 'artcafe up', instead of a fleet.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=0.0,
    help="Repeat the check until everything is complete, for at most this time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
def check(
    nats_urls: str | None,
    nats_ca: Path | None,
    secret_file: Path | None,
    environment: str | None,
    data_dir: Path | None,
    wait_s: float,
    as_json: bool,
) -> None:
    """Check whether every NATS server has each stream completely. Until then stop none: it could have the only copy of a message.

    BEHIND counts the streams that are missing on a server or lack messages. Exits with 5 unless everything is complete.

    \b
    Example:
      artcafe nats check --nats-urls nats://10.0.0.11,nats://10.0.0.12,nats://10.0.0.13 --secret-file secret --wait 600
    """
    settings = config.load(
        {
            "nats_urls": nats_urls,
            "nats_ca": nats_ca,
            "secret_file": secret_file,
            "environment": environment,
            "data_dir": data_dir,
        }
    )
    configure("error", json=settings.log_json)  # The command itself prints its error as one sentence.
    copies = asyncio.run(_checked(settings, wait_s))
    click.echo(to_json(copies) if as_json else _text(copies))
    if not copies.is_complete:
        click.get_current_context().exit(DIFFERENT)


async def _checked(settings: Settings, wait_s: float) -> StreamCopies:
    """Return the last check: a complete one, or that after which the time is over. Raise `Unavailable`."""
    accounts = Accounts(derive(read_secret(settings.secret_path), "nats"), settings.environment)
    clock = asyncio.get_running_loop()
    end = clock.time() + wait_s
    async with open_nats(settings, accounts) as nats, asyncio.TaskGroup() as group:
        system = NatsConnection("system", nats.urls, accounts.system_user, tls=nats.tls)
        group.create_task(system.run())
        try:
            while True:
                try:
                    await system.wait_up(UP_S)
                    copies = await check_copies(system)
                    if copies.is_complete or clock.time() >= end:
                        return copies
                except OurFault as exc:
                    if clock.time() >= end:
                        raise Unavailable(f"NATS at {', '.join(nats.urls)} ({system.problem or exc})") from None
        finally:
            system.close()


def _text(copies: StreamCopies) -> str:
    rows = [list(HEADINGS), *([as_text(cell) for cell in _row(each)] for each in copies.servers)]
    lines = [*align(rows), "", _conclusion(copies)]
    if copies.few_copies:
        lines.append(
            f"{counted(copies.few_copies, 'stream')} of {copies.streams:,} have fewer copies than the servers allow:"
            " a tenant's next use adds them, within a few minutes."
        )
    return "\n".join(lines)


def _row(server: ServerCopies) -> tuple[object, ...]:
    return server.name, server.is_complete, server.streams, server.behind, server.problem


def _conclusion(copies: StreamCopies) -> str:
    if copies.is_complete:
        return f"Complete: {counted(copies.streams, 'stream')} on {counted(len(copies.servers), 'server')}."
    names = ", ".join(each.name for each in copies.servers if not each.is_complete) or "a server that is not listed"
    return f"Not complete: {names}. Stop no other server yet."
