"""The commands `up`, `serve` and `demo`. The server is imported only when one of them runs, not for `--help`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import click

from artcafe import config
from artcafe.cli.installation.local_token import DEMO_USER, data_dir_option, issue_token
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.cli.terminal.signals import signals_end_process
from artcafe.config import Settings
from artcafe.data_dir import read_server_info
from artcafe.errors import StartRefused


def _settings_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for every setting, with the setting's description as help."""
    for name, field in reversed(Settings.model_fields.items()):
        flag = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            option = click.option(f"{flag}/--no-{name.replace('_', '-')}", default=None, help=field.description)
        else:
            option = click.option(flag, metavar=METAVARS.get(name, "WORD"), default=None, help=_help(name))
        command = option(command)
    path = click.Path(path_type=Path, exists=True, dir_okay=False)
    config_file = click.option("--config", "config_file", type=path, help="A TOML file of settings.  [env: ARTCAFE_CONFIG]")
    return config_file(command)


METAVARS: Final = {
    "data_dir": "DIR",
    "listen": "HOST:PORT",
    "gateway_listen": "HOST:PORT",
    "metrics_listen": "HOST:PORT",
    "metrics_tenants": "ID,…",
    "processes": "N",
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
    "webhook_networks": "CIDR,…",
    "public_gateway_url": "URL",
    "public_url": "URL",
    "allowed_origins": "URL,…",
    "requests_per_s": "NUMBER",
    "connects_per_s": "NUMBER",
    "connections_per_address": "NUMBER",
    "challenges_per_min": "NUMBER",
    "tenants_per_person": "NUMBER",
    "tenants_per_day": "NUMBER",
    "nats_ca": "FILE",
    "operators": "ID,…",
    "terms_version": "NAME",
    "terms_file": "FILE",
    "terms_grace_until": "TIME",
    "cursor_write_s": "SECONDS",
    "tracing": "MODE",
    "log_level": "LEVEL",
}


def _help(name: str) -> str:
    field = Settings.model_fields[name]
    choices = f" One of {', '.join(get_args(field.annotation))}." if get_origin(field.annotation) is Literal else ""
    default = "" if field.default in (None, ()) else f" [default: {field.default}]"
    return f"{' '.join((field.description or '').split())}{choices}{default}"


@click.command(cls=ArtcafeCommand)
@_settings_flags
@click.option("--demo", is_flag=True, help="Run the demo after the start, and keep running.")
def up(config_file: Path | None, demo: bool, **flags: Any) -> None:
    """Run everything on this machine until Ctrl-C: tables in a file, nats-server as a child process, REST and gateway. The data
    is kept.

    \b
    Example:
      artcafe up --data-dir ./data --listen 127.0.0.1:8080
    """
    settings = config.load(flags, file=config_file)
    with signals_end_process():
        from artcafe.cli.operate.server_runner import run

    run(settings, lambda: config.load(flags, file=config_file), embedded=True, demo=demo)


@click.command("serve", cls=ArtcafeCommand)
@_settings_flags
def serve_one(config_file: Path | None, **flags: Any) -> None:
    """Run one server of a fleet until SIGTERM. NATS and the secret must exist: the server creates no state that the servers of a
    fleet could disagree on.

    \b
    Example:
      artcafe serve --nats-urls nats://127.0.0.1:4222 --secret-file /etc/artcafe/secret
    """
    settings = config.load(flags, file=config_file)
    with signals_end_process():
        from artcafe.cli.operate.server_runner import run

    run(settings, lambda: config.load(flags, file=config_file), embedded=False, demo=False)


@click.command(cls=ArtcafeCommand)
@data_dir_option
def demo(data_dir: Path) -> None:
    """Show agents at work on a running server, step by step: they log in, exchange messages, disconnect, reconnect and catch up.

    \b
    Example:
      artcafe up        in one terminal
      artcafe demo      in another
    """
    server = read_server_info(data_dir)
    if not server:
        raise StartRefused(f"no artcafe runs on the data folder {data_dir}", f"start one first: artcafe up --data-dir {data_dir}")
    settings = config.load({"data_dir": data_dir})
    with signals_end_process():
        from artcafe.cli.operate.demo import run_demo

    asyncio.run(run_demo(server["url"], issue_token(settings, DEMO_USER), data_dir / "demo"))
