from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from artcafe.cli.commands import artcafe
from artcafe.cli.terminal import exit_codes
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.process import configuration, find_binary
from artcafe.rules.secrets import derive

THREE = ("--node", "n1=10.0.0.11", "--node", "n2=10.0.0.12:4333", "--node", "n3=[fd00::3]:4222:7222")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("s" * 32)
    file.chmod(0o600)
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(artcafe, ["nats", "config", *map(str, arguments)], env={"ARTCAFE_DATA_DIR": "/nowhere"})


def printed(*arguments: object) -> dict[str, Any]:
    result = run("--json", *arguments)
    assert result.exit_code == 0, result.output
    configured: dict[str, Any] = json.loads(result.stdout)
    return configured


def is_valid(configured: str, folder: Path) -> bool:
    """Whether nats-server accepts the configuration."""
    file = folder / "nats.conf"
    file.write_text(configured)
    checked = subprocess.run([find_binary(), "-t", "-c", file], capture_output=True, check=False, timeout=30)
    return checked.returncode == 0


def test_single_node_has_the_configuration_of_the_embedded_server(secret: Path, tmp_path: Path) -> None:
    configured = printed("--secret-file", secret, "--node", f"artcafe=127.0.0.1:{24_000}", "--store", tmp_path)
    child = configuration(tmp_path, 24_000, Accounts(derive(b"s" * 32, "nats"), "prod"))
    traces = {"pid_file", "log_file", "logfile_size_limit", "logfile_max_num"}
    signed = {"operator", "resolver_preload"}  # They contain the time of signing.
    assert configured.keys() == child.keys() - traces
    assert all(configured[key] == child[key] for key in configured.keys() - signed)
    assert configured["resolver_preload"].keys() == child["resolver_preload"].keys()
    assert configured["jetstream"]["sync_interval"] == "always"
    assert "s" * 32 not in json.dumps(configured)


@pytest.mark.parametrize("name", ["n1", "n2", "n3"])
def test_each_cluster_node_routes_to_the_others_and_nats_server_accepts_it(secret: Path, tmp_path: Path, name: str) -> None:
    result = run("--secret-file", secret, *THREE, "--name", name, "--store", tmp_path / "store")
    assert result.exit_code == 0, result.output
    assert (
        "# " + "Setting of ArtCafe's servers: --nats-urls nats://10.0.0.11:4222,nats://10.0.0.12:4333,nats://[fd00::3]:4222"
        in (result.stdout)
    )
    assert "mode 0600" in result.stdout
    assert "unencrypted" in result.stdout
    assert is_valid(result.stdout, tmp_path)
    configured = printed("--secret-file", secret, *THREE, "--name", name)
    others = {"n1": "10.0.0.11:6222", "n2": "10.0.0.12:6222", "n3": "[fd00::3]:7222"}
    del others[name]
    assert [route.rpartition("@")[2] for route in configured["cluster"]["routes"]] == list(others.values())
    password = configured["cluster"]["authorization"]["password"]
    assert len(password) == 64
    assert all(f":{password}@" in route for route in configured["cluster"]["routes"])


def test_cluster_password_differs_by_secret_and_environment(secret: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("o" * 32)
    other.chmod(0o600)
    clusters = [
        printed("--secret-file", file, "--environment", environment, *THREE, "--name", "n1")["cluster"]
        for file, environment in ((secret, "prod"), (secret, "dev"), (other, "prod"))
    ]
    assert len({each["authorization"]["password"] for each in clusters}) == 3
    assert [each["name"] for each in clusters] == ["artcafe-prod", "artcafe-dev", "artcafe-prod"]


def test_tls_is_set_for_clients_and_mutual_for_routes(secret: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    tls = ("--tls-cert", "cert.pem", "--tls-key", "/etc/key.pem", "--tls-ca", "ca.pem")
    configured = printed("--secret-file", secret, *THREE, "--name", "n1", *tls)
    files = {"cert_file": f"{tmp_path}/cert.pem", "key_file": "/etc/key.pem", "ca_file": f"{tmp_path}/ca.pem"}
    assert configured["tls"] == files
    assert configured["cluster"]["tls"] == files | {"verify": True}
    shown = run("--secret-file", secret, *THREE, "--name", "n1", *tls).stdout
    assert "--nats-urls tls://10.0.0.11:4222,tls://" in shown
    assert "unencrypted" not in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--node", "a=h"), "cannot be read"),
        ((*THREE[:4], "--name", "n1"), "2 nodes survive no more failures than 1"),
        (THREE, "select the server to configure with --name: n1, n2, n3"),
        ((*THREE, "--name", "n4"), "no --node has the name n4; the names are n1, n2, n3"),
        ((*THREE[:4], "--node", "n1=10.0.0.13", "--name", "n1"), "two nodes have the same name"),
        (("--node", "n1"), "NAME=HOST"),
        (("--node", "n1=h:0"), "NAME=HOST"),
        (("--node", "n1=h:70000"), "NAME=HOST"),
        (("--node", "n 1=h"), "NAME=HOST"),
        (("--tls-cert", "c"), "must be used together"),
    ],
)
def test_invalid_options_print_one_sentence(arguments: Sequence[str], sentence: str) -> None:
    result = run(*arguments)
    assert result.exit_code in (exit_codes.USAGE, exit_codes.REFUSED)
    assert sentence in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_output_file_is_replaced_with_mode_0600_whatever_the_umask(secret: Path, tmp_path: Path) -> None:
    arguments = ["--secret-file", secret, *THREE, "--name", "n1"]
    file = tmp_path / "nats.conf"
    file.touch(0o644)
    before = os.umask(0)
    try:
        assert run(*arguments, "--output", file).output == ""
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o600
    assert without_tokens(file.read_text()) == without_tokens(run(*arguments).stdout)
    refused = run(*arguments, "--output", tmp_path / "none" / "nats.conf")
    assert (refused.exit_code, "cannot be written" in refused.output) == (exit_codes.REFUSED, True)


def without_tokens(configured: str) -> str:
    """Return the text without signed tokens, which contain the time."""
    return re.sub(r"eyJ[\w.-]+", "", configured)


@pytest.mark.parametrize(("mode", "is_warned"), [(0o644, True), (0o600, False)])
def test_printing_a_password_to_a_readable_file_prints_a_warning(
    secret: Path, tmp_path: Path, mode: int, is_warned: bool
) -> None:
    command = [sys.executable, "-m", "artcafe", "nats", "config", "--secret-file", str(secret), *THREE, "--name", "n1"]
    with os.fdopen(os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT, mode), "wb") as out:
        os.fchmod(out.fileno(), mode)
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=True, timeout=60)
    assert ("others can read it" in done.stderr) is is_warned
