"""The console's files and codes over REST."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from artcafe.identity.local import LIFETIME_S
from artcafe.observe.clock import now
from artcafe.rest.console import FOREVER, SCRIPT, STYLE, content_policy
from artcafe.rest.headers import HEADERS
from tests.rest.rest_app import SETTINGS, RestApp


def test_page_has_a_policy_of_its_own_and_other_routes_keep_theirs(rest_app: RestApp) -> None:
    page = rest_app.client().get("/console")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == content_policy(SETTINGS)
    assert page.headers.get_list("content-security-policy", split_commas=False) == [content_policy(SETTINGS)]
    usual = dict(HEADERS)[b"content-security-policy"].decode()
    for path in ("/v1", "/console/unknown.js", "/console/"):
        assert rest_app.client().get(path).headers["content-security-policy"] == usual


def test_trailing_slash_redirects_to_the_page(rest_app: RestApp) -> None:
    anyone = rest_app.client()
    for query in ("", "?a=1&b=%2F"):
        answer = anyone.get(f"/console/{query}", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (307, f"/console{query}")
    assert anyone.get("/console/", follow_redirects=True).text == anyone.get("/console").text
    assert anyone.get("/console//", follow_redirects=False).status_code == 404


def test_policy_allows_connections_to_the_gateway_and_the_issuer_only() -> None:
    gateway = "ws://127.0.0.1:8081"
    assert "connect-src 'self' ws" in content_policy(SETTINGS)
    settings = replace(
        SETTINGS,
        gateway_url=f"{gateway}/v1/connect",
        issuer="https://issuer.example.com/pool",
        console_token_origin="https://login.example.com",
    )
    assert f"connect-src 'self' {gateway} https://issuer.example.com https://login.example.com;" in content_policy(settings)
    assert "unsafe" not in content_policy(settings)


def test_named_files_are_cached_for_ever_and_others_asked_for_again(rest_app: RestApp) -> None:
    anyone = rest_app.client()
    page = anyone.get("/console")
    named = re.findall(r'"(/console/app\.\w+\?v=\w+)"', page.text)
    assert len(named) == 2
    for address in named:
        assert anyone.get(address).headers["cache-control"] == FOREVER
        assert anyone.get(address.replace("?v=", "?v=0")).headers["cache-control"] == "no-cache"
    for path in ("/console", f"/console/{SCRIPT}", f"/console/{STYLE}"):
        first = anyone.get(path)
        assert first.headers["cache-control"] == "no-cache"
        again = anyone.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_code_signs_its_creator_in_once(rest_app: RestApp) -> None:
    made = rest_app.user("alice").post("/v1/auth/console-codes")
    assert made.status_code == 201
    first, second = (rest_app.client().post("/v1/auth/console-tokens", json={"code": made.json()["code"]}) for _ in range(2))
    assert second.json()["code"] == "bad_code"
    token = first.json()["access_token"]
    me = rest_app.client().get("/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert me.json()["user_id"] == "alice"
    assert rest_app.client().post("/v1/auth/console-tokens", json={"code": "invented"}).json() | {"request_id": ""} == (
        second.json() | {"request_id": ""}
    )


def test_code_is_no_challenge_of_an_agent(rest_app: RestApp) -> None:
    code = rest_app.user("alice").post("/v1/auth/console-codes").json()["code"]
    for text in (code, f"console#{code}"):
        answer = rest_app.client().post("/v1/auth/tokens", json={"challenge_id": text, "signature": "x"})
        assert answer.json()["code"] == "bad_credentials"
    assert rest_app.client().post("/v1/auth/console-tokens", json={"code": code}).status_code == 200


def test_token_of_a_code_expires_with_the_token_that_made_the_code(rest_app: RestApp) -> None:
    end = now().replace(microsecond=0) + timedelta(minutes=2)
    token = rest_app.identity.issue("alice", end - timedelta(seconds=LIFETIME_S))
    for _ in range(2):  # A code made with a code's token extends nothing either.
        code = rest_app.client(token).post("/v1/auth/console-codes").json()["code"]
        answer = rest_app.client().post("/v1/auth/console-tokens", json={"code": code}).json()
        token = answer["access_token"]
        assert rest_app.run(rest_app.identity.verify(token, now())).expires_at == end
        assert 0 < answer["expires_in"] <= 120


def test_code_expires_no_later_than_the_token_that_made_it(rest_app: RestApp) -> None:
    end = now().replace(microsecond=0) + timedelta(seconds=30)
    late = rest_app.client(rest_app.identity.issue("alice", end - timedelta(seconds=LIFETIME_S)))
    assert datetime.fromisoformat(late.post("/v1/auth/console-codes").json()["expires_at"]).astimezone(UTC) == end
