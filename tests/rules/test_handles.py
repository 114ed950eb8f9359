from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import artcafe
from artcafe.errors import Invalid
from artcafe.rules import handles, ids


@pytest.mark.parametrize("text", ["a", "7", "planner", "planner-2", "0.x_y-z", "a" * 64, "agt", "agt-1", "agtx_1", "to_key"])
def test_handle_is_accepted(text: str) -> None:
    assert handles.check(text) == text
    assert handles.is_handle(text)


@pytest.mark.parametrize(
    "text", ["", "a" * 65, "-a", ".a", "_a", "Planner", "a b", "é", "a\n", "٣", "a/b", "a#b", "agt_1", "chn_", "usr:a", "ß"]
)
def test_other_text_is_no_handle_and_is_refused_with_the_rule(text: str) -> None:
    assert not handles.is_handle(text)
    with pytest.raises(Invalid, match="handle: must"):
        handles.check(text)


def test_no_generated_id_can_be_a_handle() -> None:
    for prefix in ids.PREFIXES:
        for id in (ids.new_id(prefix), ids.new_id(prefix).lower(), ids.derived_id(prefix, "a")):
            assert not handles.is_handle(id), id


def test_every_prefix_of_ids_is_known() -> None:
    source = "\n".join(path.read_text() for path in Path(artcafe.__file__).parent.rglob("*.py"))
    used = set(re.findall(r"""(?:new_id|derived_id|_derived)\("([a-z]+)\"""", source))
    assert {"agt", "chn", "msg", "ten"} <= used
    assert used <= set(ids.PREFIXES)


@pytest.mark.parametrize(
    ("name", "handle"),
    [
        ("Planner", "planner"),
        ("Order Planner (EU)", "order-planner-eu"),
        ("Größe & Café", "grosse-cafe"),
        ("  v1.2_final ", "v1.2_final"),
        ("--", "agent"),
        ("計画", "agent"),
        ("agt_1", "agt-1"),
        ("KEY_rotation_x", "key-rotation_x"),
        ("x" * 63 + " yz", "x" * 63),
    ],
)
def test_handle_is_made_from_a_name(name: str, handle: str) -> None:
    assert handles.from_name(name, "agent") == handle


@given(st.text(max_size=80), st.integers(1, 10**6))
def test_handles_made_from_any_name_are_valid(name: str, number: int) -> None:
    made = handles.from_name(name, "agent")
    assert handles.check(made) == made
    assert handles.check(handles.numbered(made, number))
    assert handles.check(handles.for_id(made, ids.new_id("agt")))


def test_numbered_handles_differ_within_64_characters() -> None:
    made = {handles.numbered("a" * 64, number) for number in range(1, 200)}
    assert len(made) == 199
    assert all(len(each) <= 64 for each in made)
    assert handles.numbered("planner", 1) == "planner"
    assert handles.numbered("planner", 2) == "planner-2"


def test_request_without_a_handle_has_the_hash_of_a_request_before_there_were_handles() -> None:
    assert handles.hashed(None) == ()
    assert handles.hashed("a") != handles.hashed("b")
