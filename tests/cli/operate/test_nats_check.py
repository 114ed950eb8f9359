"""`artcafe nats check` on three NATS servers, on a data folder, and without any."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from artcafe.cli.terminal.exit_codes import DIFFERENT, REFUSED, UNREACHABLE
from tests.fleet import NatsServers
from tests.forked import run_artcafe
from tests.platform import Platform

WAIT_S = "60"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServers]:
    servers = NatsServers(tmp_path_factory.mktemp("nats"), 3)
    servers.start()
    try:
        yield servers
    finally:
        servers.end()


def checked(servers: NatsServers, *options: str) -> subprocess.CompletedProcess[str]:
    secret = str(servers.secret)
    return run_artcafe("nats", "check", "--nats-urls", servers.urls, "--secret-file", secret, *options, timeout=90)


@pytest.mark.timeout(240)
def test_check_names_the_server_that_is_down_and_waits_until_it_is_complete(servers: NatsServers) -> None:
    done = checked(servers, "--wait", WAIT_S)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split() == ["NATS", "COMPLETE", "STREAMS", "BEHIND", "PROBLEM"]
    assert done.stdout.splitlines()[-1] == "Complete: 0 streams on 3 servers."

    servers.kill("nats-2")
    down = checked(servers)
    assert down.returncode == DIFFERENT
    assert ["nats-2", "no", "0", "no", "answer"] in [line.split() for line in down.stdout.splitlines()]
    assert "nats-2" in down.stdout.splitlines()[-1]
    assert down.stdout.endswith("Stop no other server yet.\n")
    told = json.loads(checked(servers, "--json").stdout)
    assert (told["is_complete"], [each["name"] for each in told["servers"]]) == (False, ["nats-1", "nats-2", "nats-3"])
    assert told["servers"][1] == {"name": "nats-2", "streams": None, "behind": 0, "problem": "no answer"}

    servers.start(servers.node("nats-2"))
    assert checked(servers, "--wait", WAIT_S).returncode == 0


def test_check_of_a_data_folder_asks_its_nats(platform: Platform) -> None:
    done = run_artcafe("nats", "check", "--data-dir", str(platform.data), "--json")
    assert done.returncode == 0, done.stderr
    (server,) = json.loads(done.stdout)["servers"]
    assert (server["behind"], server["problem"]) == (0, None)


def test_check_says_that_no_server_answers_and_what_a_fleet_needs(servers: NatsServers, tmp_path: Path) -> None:
    options = ("nats", "check", "--secret-file", str(servers.secret))
    nowhere = (*options, "--nats-urls", "nats://127.0.0.1:9")
    dead = run_artcafe(*nowhere)
    assert (dead.returncode, dead.stdout) == (UNREACHABLE, "")
    assert "NATS at nats://127.0.0.1:9 (" in dead.stderr
    assert json.loads(run_artcafe(*nowhere, "--json").stderr)["error"]["code"] == "unavailable"
    unnamed = run_artcafe(*options, "--data-dir", str(tmp_path / "none"))
    assert unnamed.returncode == REFUSED
    assert "ARTCAFE_NATS_URLS" in unnamed.stderr
