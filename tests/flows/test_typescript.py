"""The TypeScript client: its own tests (`node --test`), against a real `artcafe up`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from artcafe.observe.clock import now
from artcafe.rules import wake
from tests.children import plain_environ, started_with_parent
from tests.conftest import Require
from tests.platform import Platform

CLIENT: Final = Path(__file__).parents[2] / "clients" / "typescript"
FIRST_NODE: Final = 20
INSTALL_S: Final = 300.0
TESTS_S: Final = 480.0
VERIFY: Final = """
import { Webhook } from "standardwebhooks";
const [body, headers, secrets] = process.argv.slice(1).map((text) => JSON.parse(text));
for (const secret of secrets) console.log(JSON.stringify(new Webhook(secret).verify(body, headers)));
"""
"""A receiver of webhooks in Node.js: it prints what the library has verified, and throws for a wrong signature."""


def has_node() -> bool:
    """Return whether npm and a Node.js that is new enough are here."""
    if shutil.which("npm") is None or (node := shutil.which("node")) is None:
        return False
    version = subprocess.run((node, "--version"), capture_output=True, text=True, check=False).stdout
    return version.startswith("v") and int(version[1:].partition(".")[0]) >= FIRST_NODE


def run(command: Sequence[str], timeout_s: float, environ: dict[str, str]) -> str:
    """Run a command in the client's folder, and return its output. Ends its whole process group after `timeout_s`."""
    process = started_with_parent(
        command, cwd=CLIENT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        output = process.communicate(timeout=timeout_s)[0].decode()
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"{' '.join(command)} did not end:\n{process.communicate()[0].decode()[-5000:]}")
    assert process.returncode == 0, f"{' '.join(command)} failed:\n{output[-10_000:]}"
    return output


def install(environ: dict[str, str]) -> None:
    """Install the client's tools from its lock, unless these versions are installed."""
    installed = CLIENT / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (CLIENT / "package-lock.json").stat().st_mtime:
        run(("npm", "ci"), INSTALL_S, environ)


@pytest.mark.timeout(INSTALL_S + TESTS_S + 60)
def test_typescript_client_passes_its_tests(platform_on_a_file: Platform, require: Require) -> None:
    require(f"Node.js {FIRST_NODE} or newer with npm", has_node())
    token = platform_on_a_file.token("typescript@example.com")
    environ = {**plain_environ(), "ARTCAFE_TEST_URL": platform_on_a_file.url, "ARTCAFE_TEST_TOKEN": token}
    install(environ)
    output = run(("npm", "test", "--", "--test-reporter=tap"), TESTS_S, environ)
    assert "\n# fail 0\n" in output
    assert "\n# skipped 0\n" in output


@pytest.mark.timeout(INSTALL_S + 60)
def test_webhook_is_verified_by_the_npm_library_of_standard_webhooks(require: Require) -> None:
    require(f"Node.js {FIRST_NODE} or newer with npm", has_node())
    install(plain_environ())
    secrets = [wake.secret_of(b"k" * 32, salt) for salt in ("new", "old")]
    body = json.dumps({"type": "agent.messages_waiting"})
    headers = wake.signed_headers(secrets, "whk_1", now(), body.encode())

    def verified(*keys: bytes) -> Sequence[str]:
        given = (json.dumps(each) for each in (body, headers, [wake.secret_text(key) for key in keys]))
        return "node", "--input-type=module", "--eval", VERIFY, *given

    assert run(verified(*secrets), 60, plain_environ()) == f"{body}\n".replace(" ", "") * 2
    with pytest.raises(AssertionError, match="No matching signature found"):
        run(verified(b"x" * 32), 60, plain_environ())
