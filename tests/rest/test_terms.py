"""Terms over REST: people must accept the current version before anything else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from artcafe.services.terms import Current
from tests.rest.rest_app import Caller, RestApp

TEXT = "Be kind.\n"


@pytest.fixture(scope="module")
def rest_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestApp]:
    with RestApp(tmp_path_factory.mktemp("server"), Current(version="2026-11", text=TEXT)) as rest_app:
        yield rest_app


def user_without_terms(rest_app: RestApp, user: str) -> Caller:
    return rest_app.user(user, accepts=False)


def test_other_routes_answer_403_until_the_terms_are_accepted(rest_app: RestApp) -> None:
    ann = user_without_terms(rest_app, "ann@example.com")
    for answer in (
        ann.get("/v1/tenants"),
        ann.post("/v1/tenants", json={"name": "Acme"}),
        ann.get("/v1/tenants/ten_x"),
        ann.post("/v1/invitations/acceptances", json={"token": "x"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "terms_required")
    assert ann.get("/v1/terms").json() == {"version": "2026-11", "text": TEXT, "grace_until": None}
    assert ann.get("/v1/terms/acceptances").json() == {"items": [], "next_cursor": None}
    assert ann.get("/v1/me").json()["terms_outstanding"] == {"version": "2026-11", "grace_until": None}

    accepted = ann.post("/v1/terms/acceptances", json={"version": "2026-11"})
    assert accepted.status_code == 201
    body = accepted.json()
    assert (body["user_id"], body["version"], body["ip_address"]) == ("ann@example.com", "2026-11", "127.0.0.1")
    assert ann.post("/v1/terms/acceptances").json() == body
    assert ann.get("/v1/terms/acceptances").json()["items"] == [body]
    assert ann.get("/v1/me").json()["terms_outstanding"] is None
    assert ann.post("/v1/tenants", json={"name": "Acme"}).status_code == 201


def test_only_the_current_version_is_accepted_and_clients_cannot_set_fields(rest_app: RestApp) -> None:
    ben = user_without_terms(rest_app, "ben@example.com")
    wrong = ben.post("/v1/terms/acceptances", json={"version": "2025-01"})
    assert (wrong.status_code, wrong.json()["code"]) == (409, "terms_changed")
    for more in ({"ip_address": "203.0.113.7"}, {"accepted_at": "2020-01-01T00:00:00Z"}, {"user_id": "ann@example.com"}):
        assert ben.post("/v1/terms/acceptances", json={"version": "2026-11", **more}).status_code == 422
    assert ben.get("/v1/terms/acceptances").json()["items"] == []


def test_agents_need_not_accept_the_terms(rest_app: RestApp) -> None:
    agent = rest_app.tenant().agent().login()
    assert agent.get("/v1/me").status_code == 200
    for answer in (agent.get("/v1/terms"), agent.post("/v1/terms/acceptances")):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
