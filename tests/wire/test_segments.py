from __future__ import annotations

import string
from urllib.parse import quote, urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.wire.segments import for_routing, from_routing, id_of, segment_of, tenant_path

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.text("./\\%~2FEe5", min_size=1)


@given(IDS)
def test_segment_decodes_to_its_id_and_clients_and_proxies_keep_it(id: str) -> None:
    segment = segment_of(id)
    assert id_of(segment) == id
    assert set(segment) <= {*string.ascii_letters, *string.digits, *"-._~%"}
    assert segment not in {".", ".."}
    assert not {"%2F", "%5C", "%25", "%2E"} & {segment[at : at + 3].upper() for at in range(len(segment))}
    assert urljoin("http://host/v1/tenants/ten_1/members/", segment).removeprefix("http://host/") == (
        f"v1/tenants/ten_1/members/{segment}"
    )


@given(st.lists(IDS, min_size=1, max_size=4))
def test_routing_yields_the_id_of_every_form_of_a_segment(ids: list[str]) -> None:
    escaped = "/".join(segment_of(id) for id in ids)
    segments = for_routing(escaped).split("/")
    assert [from_routing(each) for each in segments] == ids
    if not any(id.startswith("~") for id in ids):
        encoded = "/".join(quote(id, safe="") for id in ids)
        assert for_routing(encoded) == for_routing(escaped)


@pytest.mark.parametrize(
    ("segment", "id"),
    [
        ("agt_01J", "agt_01J"),
        ("samlp%7Ccorp%7Cab%2Fcd%3D%3D", "samlp|corp|ab/cd=="),
        ("%2e%2E", ".."),
        ("..", ".."),
        ("~2e2e", ".."),
        ("%7E2e2e", ".."),
        ("%252F", "%2F"),
        ("~", "~"),
        ("~~", "~~"),
        ("~2E", "~2E"),
        ("~2", "~2"),
        ("~ff", "~ff"),
        ("%", "%"),
    ],
)
def test_segment_decodes_to(segment: str, id: str) -> None:
    assert id_of(segment) == id
    assert from_routing(for_routing(segment)) == id


def test_empty_id_and_half_a_surrogate_pair_raise_value_error() -> None:
    for id in ("", "\ud800"):
        with pytest.raises(ValueError, match=r"at least one|surrogates"):
            segment_of(id)


def test_ordinary_path_is_unchanged() -> None:
    assert for_routing("/v1/tenants/ten_1/agents") == "/v1/tenants/ten_1/agents"
    assert tenant_path("ten_1", "members", "auth0|a b") == "/v1/tenants/ten_1/members/auth0%7Ca%20b"
