"""`artcafe console`: open the web console in a browser, signed in."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import webbrowser
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

import click

from artcafe.cli.manage.command_context import person_options
from artcafe.cli.manage.credentials import DEFAULT_URL, read_server_info, resolve_credentials
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.sdk import addresses
from artcafe.sdk.client import Client

PATH: Final = "/console"
LINK_FILE: Final = "console.html"
_LINK: Final = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={url}"><title>ArtCafe</title>\n'


@dataclass(frozen=True, slots=True)
class ConsoleAddress:
    """The page's address, and when the code in it expires."""

    url: str
    expires_at: str | None


@click.command(cls=ArtcafeCommand)
@click.option("--open/--no-open", "is_opened", default=True, show_default=True, help="Open it, or only print its address.")
@person_options
def console(url: str | None, token: str | None, user: str | None, data_dir: Path, as_json: bool, is_opened: bool) -> None:
    """Open the web console in a browser, and print its address.

    With the local identity, the address has a code that signs you in once, within 60 seconds. Otherwise the console sends you to
    the issuer.

    \b
    Examples:
      artcafe console
      artcafe console --user alice@example.com --no-open
    """
    address = asyncio.run(_address(url, token, user, data_dir))
    click.echo(json.dumps({"url": address.url, "expires_at": address.expires_at}) if as_json else address.url)
    if is_opened and _has_browser():
        webbrowser.open(address.url if address.expires_at is None else _link_file(data_dir, address.url))


async def _address(url: str | None, token: str | None, user: str | None, data_dir: Path) -> ConsoleAddress:
    """Return the address, with a code if the server has the local identity."""
    server = url or read_server_info(data_dir).get("url", DEFAULT_URL)
    async with Client(server, max_retry_s=0) as anyone:
        issuer = (await anyone.home()).issuer
    if issuer is not None:
        return ConsoleAddress(addresses.rest(addresses.several(server)[0]) + PATH, None)
    credentials = resolve_credentials(url, token, user, data_dir)
    async with Client(credentials.url, credentials.token, max_retry_s=0) as person:
        made = await person.create_console_code()
        return ConsoleAddress(f"{person.url}{PATH}#code={made.code}", made.expires_at.isoformat())


def _has_browser() -> bool:
    """Return whether a browser can open a window. Without a display, `webbrowser` would start one inside the terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _link_file(data_dir: Path, url: str) -> str:
    """Write a page that leads to the address, and return its own: other users of this machine can read a browser's arguments, and
    so would see the code."""
    folder = data_dir if data_dir.is_dir() else Path(tempfile.mkdtemp(prefix="artcafe-"))
    file = folder / LINK_FILE
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as page:
        page.write(_LINK.format(url=escape(url)))
    return file.resolve().as_uri()
