"""Requests generated from the OpenAPI document, valid and invalid, by three kinds of caller.

No response is an internal error, and every response is documented.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Final, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from artcafe.assembly import Services
from artcafe.errors import AgentAway
from artcafe.model import Role
from artcafe.rest.app import build
from tests.rest.rest_app import BOUND_S, SETTINGS, RestApp

# The document is the same whatever serves it.
DOCUMENT: Final = build(cast("Services", None), SETTINGS).openapi()
FOUND: Final = [found for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations() if isinstance(found, Ok)]
OPERATIONS: Final = {found.ok().label: found.ok() for found in FOUND}
CHECKS: Final = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
CALLERS: Final = ("owner", "viewer", "agent")
ASK: Final = "POST /v1/tenants/{tenant_id}/agents/{agent_id}/requests"
"""The operation that answers `agent_away`, a 503, to every valid request: no agent of these tests is connected."""
EXAMPLES: Final = 8
"""Examples for each operation and caller, half of them valid."""

quietly = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    database=None,
)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("label", OPERATIONS)
def test_responses_match_the_document_and_are_never_internal_errors(rest_app: RestApp, label: str, caller: str) -> None:
    operation = OPERATIONS[label]
    tenant = rest_app.tenant()  # One per test, because some operations delete it.
    agent, channel = tenant.agent(), tenant.channel()
    tenant.subscribed(channel, agent)
    # The agent has a message, so that a pull does not wait, and answers have items to compare with the document.
    assert tenant.owner.post(f"{tenant.path}/channels/{channel}/messages", json={"data": 1}).status_code == 201
    ids = {"tenant_id": tenant.id, "agent_id": agent.id, "channel_id": channel}
    who = {"owner": lambda: tenant.owner, "viewer": lambda: tenant.member(Role.VIEWER), "agent": agent.login}[caller]()
    there = {name: id for name, id in ids.items() if f"{{{name}}}" in operation.path}
    cases = st.one_of(
        operation.as_strategy(GenerationMode.POSITIVE, path_parameters=there), operation.as_strategy(GenerationMode.NEGATIVE)
    )

    @quietly
    @given(cases)
    def send(case: Case[Any]) -> None:
        headers: dict[str, Any] = {"Authorization": f"Bearer {who.token}"}
        response = case.call(base_url=rest_app.url, headers=headers, timeout=BOUND_S)
        is_away = label == ASK and response.status_code == AgentAway.status and response.json()["code"] == AgentAway.code
        assert response.status_code < 500 or is_away, case.as_curl_command()
        case.validate_response(response, checks=CHECKS)

    with rest_app.ending_streams(tenant.id) if label.endswith("/stream") else nullcontext():
        send()


def test_every_operation_is_tested() -> None:
    assert len(OPERATIONS) == sum(len(methods) for methods in DOCUMENT["paths"].values())
