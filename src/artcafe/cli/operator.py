"""The operator's commands: everything on one machine, one server of a fleet, the demo, and tokens of the local identity."""

from __future__ import annotations

import asyncio
import gc
import json
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import click

from artcafe import config
from artcafe.cli import demo as play
from artcafe.cli.exits import Failing
from artcafe.cli.local import DEMO_USER, token_for
from artcafe.config import Settings
from artcafe.errors import StartRefused
from artcafe.folder import server_of
from artcafe.observe import configure
from artcafe.server import Addresses, serve


def _settings_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for every setting, with its meaning as help."""
    for name, field in reversed(Settings.model_fields.items()):
        flag = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            option = click.option(f"{flag}/--no-{name.replace('_', '-')}", default=None, help=field.description)
        else:
            option = click.option(flag, metavar=METAVARS.get(name, "WORD"), default=None, help=_help(name))
        command = option(command)
    path = click.Path(path_type=Path, exists=True, dir_okay=False)
    config_file = click.option(
        "--config", "config_file", type=path, help="A TOML file of settings; ARTCAFE_CONFIG names one too."
    )
    return config_file(command)


METAVARS: Final = {
    "data_dir": "DIR",
    "listen": "HOST:PORT",
    "gateway_listen": "HOST:PORT",
    "tables": "ENGINE",
    "dynamodb_endpoint": "URL",
    "nats_urls": "URL,…",
    "secret_file": "FILE",
    "issuer": "URL",
    "jwks_url": "URL",
    "client_ids": "ID,…",
    "tls_cert": "FILE",
    "tls_key": "FILE",
    "trusted_proxies": "CIDR,…",
    "public_gateway_url": "URL",
    "allowed_origins": "URL,…",
    "requests_per_s": "NUMBER",
    "connects_per_s": "NUMBER",
    "challenges_per_min": "NUMBER",
    "nats_ca": "FILE",
    "terms_version": "NAME",
    "terms_file": "FILE",
    "terms_grace_until": "TIME",
    "cursor_write_s": "SECONDS",
    "log_level": "LEVEL",
}


def _help(name: str) -> str:
    field = Settings.model_fields[name]
    choices = f" One of {', '.join(get_args(field.annotation))}." if get_origin(field.annotation) is Literal else ""
    default = "" if field.default in (None, ()) else f" [default: {field.default}]"
    return f"{' '.join((field.description or '').split())}{choices}{default}"


@click.command(cls=Failing)
@_settings_flags
@click.option("--demo", is_flag=True, help="Plays the demo once everything runs, and stays up.")
def up(config_file: Path | None, demo: bool, **flags: Any) -> None:
    """Runs everything on this machine until Ctrl-C. Tables in a file, nats-server as a child, REST and gateway; keeps its data.

    \b
    Example:
      artcafe up --data-dir ./data --listen 127.0.0.1:8080
    """
    settings = config.load(flags, file=config_file)
    _run(settings, embedded=True, demo=demo)


@click.command("serve", cls=Failing)
@_settings_flags
def serve_one(config_file: Path | None, **flags: Any) -> None:
    """Runs one server of a fleet until SIGTERM. NATS and the secret are given: nothing is made that servers could differ in.

    \b
    Example:
      artcafe serve --nats-urls nats://127.0.0.1:4222 --secret-file /etc/artcafe/secret
    """
    _run(config.load(flags, file=config_file), embedded=False, demo=False)


def _run(settings: Settings, *, embedded: bool, demo: bool) -> None:
    configure(settings.log_level, json=settings.log_json)
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:  # not made for this platform; the standard loop does the same, slower
        runner = asyncio.Runner()
    with runner:
        runner.run(_until_told(settings, embedded=embedded, demo=demo))


async def _until_told(settings: Settings, *, embedded: bool, demo: bool) -> None:
    loop = asyncio.get_running_loop()
    until, started = asyncio.Event(), loop.create_future()

    async def show() -> None:
        addresses: Addresses = await started
        _spare_the_collector()
        if demo:
            await play.play(addresses.url, token_for(settings, DEMO_USER), settings.data_dir / "demo")
        _say_ready(settings, addresses, after_demo=demo)

    async with asyncio.TaskGroup() as group:
        showing = group.create_task(show())

        def stop() -> None:
            showing.cancel()
            until.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        await serve(settings, until, started.set_result, embedded=embedded)
        showing.cancel()


def _spare_the_collector() -> None:
    """What the start has made lives as long as the process, so the garbage collector need not look at it again: each full
    collection of those 100,000 objects stopped everybody for 50 to 200 ms, every few seconds under load."""
    gc.collect()
    gc.freeze()


def _say_ready(settings: Settings, addresses: Addresses, *, after_demo: bool) -> None:
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


def _data_dir(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        default=Path("artcafe-data"),
        show_default=True,
        envvar="ARTCAFE_DATA_DIR",
        help="The data folder of the server that 'artcafe up' runs.",
    )(command)


@click.command(cls=Failing)
@click.option("--user", required=True, metavar="NAME", help="Who is to be believed to call, such as alice@example.com.")
@_data_dir
@click.option("--json", "as_json", is_flag=True, help="Prints a JSON object.")
def token(user: str, data_dir: Path, as_json: bool) -> None:
    """Prints an access token for a person. It is signed with the data folder's secret (the local identity, for this machine
    alone) and good for 12 hours.

    \b
    Example:
      TOKEN=$(artcafe token --user alice@example.com --data-dir ./artcafe-data)
    """
    settings = config.load({"data_dir": data_dir})
    text = token_for(settings, user)
    click.echo(json.dumps({"access_token": text, "token_type": "Bearer", "user_id": user}) if as_json else text)


@click.command(cls=Failing)
@_data_dir
def demo(data_dir: Path) -> None:
    """Plays the main job on a running server, step by step. Agents log in, talk, leave, come back and catch up.

    \b
    Example:
      artcafe up        in one terminal
      artcafe demo      in another
    """
    told = server_of(data_dir)
    if not told:
        raise StartRefused(f"no artcafe runs on the data folder {data_dir}", f"start one first: artcafe up --data-dir {data_dir}")
    settings = config.load({"data_dir": data_dir})
    asyncio.run(play.play(told["url"], token_for(settings, DEMO_USER), data_dir / "demo"))
