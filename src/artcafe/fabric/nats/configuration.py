"""Configuration of an installation's nats-servers: the child process of `artcafe up`, and the servers of a fleet.

Written as JSON, which is a subset of NATS's own format. nats-server 2.15 defines the keys in `server/opts.go`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from artcafe.fabric.accounts import Accounts

MAX_PAYLOAD_BYTES: Final = 1024 * 1024
LONE_LOOKUP: Final = "1ms"
"""How long a single server waits for other servers to send an unknown account, though there are none. The default of 1.9 s
delayed each new tenant's first login, and a start with 40 lost JWTs by 79 s."""
FLEET_LOOKUP: Final = "500ms"
"""The same in a cluster, where another server may have an account first. Servers without it say so at once, so the full wait
occurs only while one of them hangs; our clients time out a connection after 2 s."""
ROUTES_USER: Final = "artcafe"

Configuration = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Node:
    """The address of one NATS server of a fleet: `port` for ArtCafe servers, `route_port` for other NATS servers."""

    name: str
    host: str
    port: int = 4222
    route_port: int = 6222

    @property
    def url(self) -> str:
        """Its URL for the setting `nats_urls`."""
        return f"nats://{_authority(self.host, self.port)}"


@dataclass(frozen=True, slots=True)
class NodeTls:
    """TLS files on the NATS server's machine: its certificate, its key, and the authority of the other servers' certificates."""

    certificate: Path
    key: Path
    authority: Path


def server_configuration(accounts: Accounts, *, name: str, host: str, port: int, folder: Path, lookup: str) -> Configuration:
    """Return the configuration common to every nats-server; it contains no secret. `folder` holds only this server's files."""
    return {
        "server_name": name,
        "host": host,
        "port": port,
        "operator": accounts.operator_jwt(),
        "system_account": accounts.system_key,
        "resolver": {
            "type": "full",
            "dir": str(folder / "jwt"),
            "allow_delete": True,
            "hard_delete": True,
            "timeout": lookup,
        },
        "resolver_preload": {accounts.system_key: accounts.system_jwt(), accounts.platform_key: accounts.platform_jwt()},
        "jetstream": {
            "store_dir": str(folder / "jetstream"),
            # Flush before acknowledging (design, decision 3): with the default, a power cut lost the last minutes.
            "sync_interval": "always",
            # Only the counters are kept in memory (`fabric.counters`, 48 MiB); the limits of the tenants' accounts forbid it.
            "max_mem": 128 * 1024 * 1024,
            # The accounts' limits are reservations against this one (design, decision 1), so it is infinite in effect:
            # 2**60 is 1 EiB.
            "max_file": 2**60,
        },
        "max_payload": MAX_PAYLOAD_BYTES,
        "write_deadline": "10s",
    }


def fleet_configuration(
    accounts: Accounts, nodes: Sequence[Node], node: Node, *, folder: Path, bind: str, tls: NodeTls | None
) -> Configuration:
    """Return the configuration of `node` among `nodes`; with several nodes, it contains the password of their routes.

    `bind` is the address to listen on.
    """
    is_alone = len(nodes) == 1
    lookup = LONE_LOOKUP if is_alone else FLEET_LOOKUP
    configuration = server_configuration(accounts, name=node.name, host=bind, port=node.port, folder=folder, lookup=lookup)
    if tls is not None:
        configuration["tls"] = {"cert_file": str(tls.certificate), "key_file": str(tls.key), "ca_file": str(tls.authority)}
    if not is_alone:
        configuration["cluster"] = _cluster(accounts, nodes, node, bind, tls)
    return configuration


def _cluster(accounts: Accounts, nodes: Sequence[Node], node: Node, bind: str, tls: NodeTls | None) -> Configuration:
    password = accounts.route_password()
    user = f"{ROUTES_USER}:{quote(password, safe='')}"
    cluster: Configuration = {
        "name": f"artcafe-{accounts.environment}",
        "host": bind,
        "port": node.route_port,
        # A route carries every account, so only servers of this installation may open one.
        "authorization": {"user": ROUTES_USER, "password": password, "timeout": 5},
        "routes": [f"nats-route://{user}@{_authority(each.host, each.route_port)}" for each in nodes if each is not node],
        # `nats_urls` gives clients all servers; the address that a server would advertise may be unreachable for them.
        "no_advertise": True,
    }
    if tls is not None:
        files = {"cert_file": str(tls.certificate), "key_file": str(tls.key), "ca_file": str(tls.authority)}
        cluster["tls"] = {**files, "verify": True}
    return cluster


def to_text(configuration: Configuration) -> str:
    """Return the text of the configuration file."""
    return json.dumps(configuration, indent=2, ensure_ascii=False)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
