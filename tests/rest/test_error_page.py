"""GET /docs/errors: the page that a problem's `type` names."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest

from artcafe.errors import REGISTRY
from artcafe.rest.headers import HEADERS
from docs.generate import APART
from tests.rest.rest_app import Caller

CODES = {code for code, kind in REGISTRY.items() if kind.__module__ == "artcafe.errors"} - APART.keys()


class Page(HTMLParser):
    """The ids and links of a page, and the text of its style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.ids += [id for id in (given.get("id"),) if id]
        self.links += [link for link in (given.get("href"), given.get("src")) if link]


def test_type_of_a_problem_leads_to_its_error_on_the_page(anyone: Caller) -> None:
    problem = anyone.get("/v1/me").json()
    target = urlsplit(urljoin("http://server/v1/me", problem["type"]))
    answer = anyone.get(target.path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert target.fragment == "unauthenticated"
    assert target.fragment in Page(answer.text).ids


def test_page_has_every_code_once(anyone: Caller) -> None:
    ids = Page(anyone.get("/docs/errors").text).ids
    assert len(ids) == len(set(ids))
    assert set(ids) >= CODES


def test_page_loads_and_runs_nothing_and_its_policy_permits_its_own_style_only(anyone: Caller) -> None:
    answer = anyone.get("/docs/errors")
    page = Page(answer.text)
    assert all(link.startswith("#") for link in page.links)
    assert page.tags.isdisjoint({"script", "img", "link", "iframe", "form"})
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"].split("; ")
    assert policy[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert "frame-ancestors 'none'" in policy


def test_page_may_be_cached_and_keeps_the_other_headers_of_every_response(anyone: Caller) -> None:
    headers = anyone.get("/docs/errors").headers
    assert headers.get_list("cache-control") == ["public, max-age=3600"]
    assert len(headers.get_list("content-security-policy")) == 1
    assert {name.decode() for name, _ in HEADERS} <= headers.keys()


@pytest.mark.parametrize("shown", ["no agent <em>id</em> in this tenant", "ssh-keygen -t ed25519 -f agent_key -N &#x27;&#x27;"])
def test_text_is_escaped_and_its_placeholders_are_marked(anyone: Caller, shown: str) -> None:
    assert shown in anyone.get("/docs/errors").text
