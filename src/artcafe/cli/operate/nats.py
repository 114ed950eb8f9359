"""`artcafe nats config`: what the NATS servers of a fleet are told. Nothing is started, and nothing is asked of them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from artcafe import config
from artcafe.cli.terminal.exit_codes import ArtcafeCommand
from artcafe.data_dir import read_secret, write_whole
from artcafe.errors import StartRefused
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.nats.configuration import Node, NodeTls, fleet_configuration, to_text
from artcafe.rules.secrets import derive

DEFAULT_NODE: Final = "nats-1=127.0.0.1"
NODE: Final = re.compile(r"(?P<name>[A-Za-z0-9_-]+)=(?P<host>\[[^]]+\]|[^:\[\]]+)(:(?P<port>\d+))?(:(?P<route_port>\d+))?")
SIZES: Final = (1, 3, 5)

_PATH: Final = click.Path(path_type=Path)


class NodeType(click.ParamType[Node]):
    """NAME=HOST[:PORT[:ROUTE_PORT]]."""

    name = "node"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Node:
        """As click has it."""
        if isinstance(value, Node):
            return value
        found = NODE.fullmatch(value)
        ports = {name: int(found[name]) for name in ("port", "route_port") if found[name]} if found else {}
        if found is None or any(not 0 < port < 65536 for port in ports.values()):
            self.fail(f"{value!r} is not NAME=HOST[:PORT[:ROUTE_PORT]], such as nats-1=10.0.0.11:4222:6222", param, ctx)
        return Node(found["name"], found["host"].strip("[]"), **ports)


@click.group()
def nats() -> None:
    """The NATS servers of a fleet."""


@nats.command("config", cls=ArtcafeCommand)
@click.option("--secret-file", type=_PATH, metavar="FILE", help="The fleet's secret, as its servers get it.")
@click.option("--environment", metavar="WORD", help="As the servers' setting: prod or dev. [default: prod]")
@click.option(
    "--node",
    "nodes",
    type=NodeType(),
    metavar="NAME=HOST[:PORT[:ROUTE_PORT]]",
    multiple=True,
    default=[DEFAULT_NODE],
    show_default=True,
    help="A NATS server of the fleet, and where it is reached; once for each. One, three or five of them.",
)
@click.option("--name", metavar="NAME", help="Which of them this is for. Needed when there are several.")
@click.option(
    "--store", type=_PATH, metavar="DIR", default=Path("/var/lib/artcafe-nats"), show_default=True, help="For its files."
)
@click.option("--bind", metavar="HOST", help="Where it listens, when that is not the host in --node, such as 0.0.0.0.")
@click.option(
    "--tls-cert", type=_PATH, metavar="FILE", help="Its certificate, for clients and for routes. With it come both below."
)
@click.option("--tls-key", type=_PATH, metavar="FILE", help="The certificate's key.")
@click.option("--tls-ca", type=_PATH, metavar="FILE", help="The authority that the certificates of all nodes are checked by.")
@click.option("--output", type=_PATH, metavar="FILE", help="Writes it there, readable by you alone, instead of printing it.")
@click.option("--json", "as_json", is_flag=True, help="Leaves out the comments above the configuration.")
def show(
    secret_file: Path | None,
    environment: str | None,
    nodes: Sequence[Node],
    name: str | None,
    store: Path,
    bind: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Prints the configuration of one NATS server of a fleet. Give all servers' commands the same nodes and the same secret.

    \b
    Example:
      artcafe nats config --secret-file secret --name nats-1 \\
        --node nats-1=10.0.0.11 --node nats-2=10.0.0.12 --node nats-3=10.0.0.13 --output nats-1.conf
    """
    settings = config.load({"secret_file": secret_file, "environment": environment})
    node = _chosen(nodes, name)
    tls = _tls(tls_cert, tls_key, tls_ca)
    accounts = Accounts(derive(read_secret(settings.secret_path), "nats"), settings.environment)
    told = fleet_configuration(accounts, nodes, node, folder=store, bind=bind or node.host, tls=tls)
    written = to_text(told) if as_json else f"{_above(nodes, node, settings.environment, tls)}\n{to_text(told)}"
    if output is None:
        click.echo(written)
        _warn_of_readers(is_secret=len(nodes) > 1)
    else:
        _write(output, written)


def _write(output: Path, written: str) -> None:
    try:
        write_whole(output, f"{written}\n")
    except OSError as exc:
        raise StartRefused(
            f"{output} cannot be written: {exc.strerror}", "name a file in a folder that is there and yours"
        ) from exc


def _warn_of_readers(*, is_secret: bool) -> None:
    """A shell makes a file for standard output as the umask has it."""
    mode = os.fstat(1).st_mode
    if is_secret and stat.S_ISREG(mode) and mode & 0o077:
        click.echo("artcafe: others can read that file, which holds a password: chmod 600 it, or use --output FILE", err=True)


def _chosen(nodes: Sequence[Node], name: str | None) -> Node:
    names = [node.name for node in nodes]
    if len(nodes) not in SIZES:
        raise click.UsageError(
            f"{len(nodes)} nodes survive no more failures than {len(nodes) - 1} would; take one, three or five"
        )
    if len(set(names)) < len(names):
        raise click.UsageError(f"two nodes have the same name: {', '.join(names)}")
    if name is None and len(nodes) > 1:
        raise click.UsageError(f"say with --name which of the nodes this is for: {', '.join(names)}")
    found = next((node for node in nodes if node.name == (name or names[0])), None)
    if found is None:
        raise click.UsageError(f"no --node is called {name}; there are {', '.join(names)}")
    return found


def _tls(certificate: Path | None, key: Path | None, authority: Path | None) -> NodeTls | None:
    match certificate, key, authority:
        case None, None, None:
            return None
        case Path(), Path(), Path():
            # A configuration is moved to another folder: its files must be found from there too.
            return NodeTls(certificate.absolute(), key.absolute(), authority.absolute())
        case _:
            raise click.UsageError("--tls-cert, --tls-key and --tls-ca belong together")


def _above(nodes: Sequence[Node], node: Node, environment: str, tls: NodeTls | None) -> str:
    """What the reader of the file must know. NATS reads these lines as comments."""
    scheme = "tls" if tls else "nats"
    urls = ",".join(each.url.replace("nats:", f"{scheme}:", 1) for each in nodes)
    lines = [f"{node.name}, a NATS server of ArtCafe ({environment}); nats-server 2.15.1 or later: nats-server -c FILE"]
    if len(nodes) > 1:
        lines.append("It holds the password of the cluster's routes: let nobody but nats-server's user read it (mode 0600).")
    if tls is None:
        lines.append("Messages travel unencrypted without --tls-cert: that is for a network in which nobody else is.")
    lines.append(f"ArtCafe's servers are given: --nats-urls {urls}")
    return "\n".join(f"# {line}" for line in lines)
