"""The TypeScript client: its own tests (`node --test`), against a real `artcafe up`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from artcafe.observe.clock import now
from artcafe.rules import webhook_signatures
from tests import node
from tests.children import plain_environ
from tests.conftest import Require
from tests.platform import Platform

CLIENT: Final = Path(__file__).parents[2] / "clients" / "typescript"
TESTS_S: Final = 480.0
VERIFY: Final = """
import { Webhook } from "standardwebhooks";
const [body, headers, secrets] = process.argv.slice(1).map((text) => JSON.parse(text));
for (const secret of secrets) console.log(JSON.stringify(new Webhook(secret).verify(body, headers)));
"""
"""A receiver of webhooks in Node.js: it prints what the library has verified, and throws for a wrong signature."""


@pytest.mark.timeout(node.INSTALL_S + TESTS_S + 60)
def test_typescript_client_passes_its_tests(platform_on_a_file: Platform, require: Require) -> None:
    require(node.NAME, node.is_there())
    token = platform_on_a_file.token("typescript@example.com")
    environ = {**plain_environ(), "ARTCAFE_TEST_URL": platform_on_a_file.url, "ARTCAFE_TEST_TOKEN": token}
    node.install(CLIENT, environ)
    output = node.run(CLIENT, ("npm", "test", "--", "--test-reporter=tap"), TESTS_S, environ)
    assert "\n# fail 0\n" in output
    assert "\n# skipped 0\n" in output


@pytest.mark.timeout(node.INSTALL_S + 60)
def test_webhook_is_verified_by_the_npm_library_of_standard_webhooks(require: Require) -> None:
    require(node.NAME, node.is_there())
    node.install(CLIENT, plain_environ())
    secrets = [webhook_signatures.secret_of(b"k" * 32, salt) for salt in ("new", "old")]
    body = json.dumps({"type": "agent.messages_waiting"})
    headers = webhook_signatures.signed_headers(secrets, "whk_1", now(), body.encode())

    def verified(*keys: bytes) -> Sequence[str]:
        given = (json.dumps(each) for each in (body, headers, [webhook_signatures.secret_text(key) for key in keys]))
        return "node", "--input-type=module", "--eval", VERIFY, *given

    assert node.run(CLIENT, verified(*secrets), 60, plain_environ()) == f"{body}\n".replace(" ", "") * 2
    with pytest.raises(AssertionError, match="No matching signature found"):
        node.run(CLIENT, verified(b"x" * 32), 60, plain_environ())
