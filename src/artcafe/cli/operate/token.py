"""`artcafe token`: print an access token of the local identity."""

from __future__ import annotations

import json
from pathlib import Path

import click

from artcafe import config
from artcafe.cli.installation.local_token import data_dir_option, issue_token
from artcafe.cli.terminal.exit_codes import ArtcafeCommand


@click.command(cls=ArtcafeCommand)
@click.option("--user", required=True, metavar="NAME", help="The user of the token, such as alice@example.com.")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def token(user: str, data_dir: Path, as_json: bool) -> None:
    """Print an access token for a user of the local identity. It is signed with the data folder's secret, accepted only by the
    server on this machine, and valid for 12 hours.

    \b
    Example:
      TOKEN=$(artcafe token --user alice@example.com --data-dir ./artcafe-data)
    """
    settings = config.load({"data_dir": data_dir})
    text = issue_token(settings, user)
    click.echo(json.dumps({"access_token": text, "token_type": "Bearer", "user_id": user}) if as_json else text)
