from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.errors import Invalid
from artcafe.rules import fields


@given(st.text(max_size=70))
def test_name_is_refused_or_returned_in_nfc_with_1_to_64_characters_on_one_line(text: str) -> None:
    try:
        name = fields.name(text)
    except Invalid:
        return
    assert name == unicodedata.normalize("NFC", text)
    assert 1 <= len(name) <= 64
    assert len(name.splitlines()) == 1


def test_names_that_look_equal_are_equal() -> None:
    assert fields.name("Cafe\u0301") == fields.name("Café")


@pytest.mark.parametrize("name", ["Planner", "A b", "机器人", "שלום", "مرحبا\u200f!", "👩‍🚀", "x" * 64, "é" * 64, "e\u0301" * 64])
def test_real_names_are_accepted(name: str) -> None:
    assert fields.name(name)


@pytest.mark.parametrize("name", ["", " ", "\u3000", "x" * 65, "a\nb", "a\x00", "\x1b[31m", "\x85", "a\u2028b", "\ud83d"])
def test_unreadable_names_are_refused(name: str) -> None:
    with pytest.raises(Invalid, match=r"^name: "):
        fields.name(name)


@pytest.mark.parametrize("control", sorted(fields.BIDI_CONTROLS))
def test_bidirectional_controls_are_refused_with_their_code_point(control: str) -> None:
    for check in (fields.name, fields.description, fields.address, lambda text: fields.capabilities([text])):
        with pytest.raises(Invalid, match=rf"U\+{ord(control):04X}"):
            check(f"bob{control}@example.com")


def test_description_may_be_empty_and_have_line_breaks() -> None:
    assert fields.description("") == ""
    assert fields.description("one\n\ttwo") == "one\n\ttwo"


@pytest.mark.parametrize("text", ["x" * 1025, "a\x00", "a\rb", "\udfff"])
def test_description_too_long_or_with_control_characters_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"^description: "):
        fields.description(text)


def test_capabilities_keep_their_order_without_duplicates() -> None:
    assert fields.capabilities(["plan", "write", "plan"]) == ("plan", "write")


def test_invalid_capability_is_named_by_its_index() -> None:
    with pytest.raises(Invalid, match=r"^capabilities\[1\]: "):
        fields.capabilities(["plan", ""])


def test_at_most_32_capabilities_are_accepted() -> None:
    assert len(fields.capabilities([f"c{n}" for n in range(32)])) == 32
    with pytest.raises(Invalid, match=r"^capabilities: "):
        fields.capabilities([f"c{n}" for n in range(33)])


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "é"])
def test_idempotency_key_is_1_to_255_printable_ascii_characters(key: str) -> None:
    assert fields.idempotency_key("order 42!") == "order 42!"
    with pytest.raises(Invalid, match=r"^Idempotency-Key: "):
        fields.idempotency_key(key)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Bob@Example.COM", "bob@example.com"),
        ("bob@stra\u00dfe.example", "bob@xn--strae-oqa.example"),
        ("bob@B\u00fccher.example", "bob@XN--BCHER-KVA.EXAMPLE"),
        ("jose\u0301@example.com", "jos\u00e9@example.com"),
    ],
)
def test_addresses_are_equal_in_any_case_and_unicode_form(one: str, other: str) -> None:
    assert fields.is_same_address(one, other)
    assert fields.is_same_address(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("bob@fass.example", "bob@fa\u00df.example"),
        ("strasse@example.com", "stra\u00dfe@example.com"),
        ("off@example.com", "o\ufb00@example.com"),
        ("bob@example.com", "bob@e\u03c7ample.com"),
        ("kim@example.com", "\u212aim@example.com"),
        ("kim@example.com", "kim@example.com\u037e"),
        ("sam@example.com", "\u017fam@example.com"),
        ("\u03c3@example.com", "\u03c2@example.com"),
        ("i@example.com", "\u0130@example.com"),
        ("i@example.com", "\u0131@example.com"),
        ("bob@example.com", "\uff42ob@example.com"),
        ("bob@example.com", "bob@example.co\uff4d"),
        ("bob@example.com", "bob+x@example.com"),
        ("bob@example.com", '"bob"@example.com'),
        ("bob@example.com", "bob@example.com."),
        ("bob@xn--.example", "bob@.example"),
    ],
)
def test_addresses_with_similar_letters_are_different(one: str, other: str) -> None:
    assert not fields.is_same_address(one, other)
    assert not fields.is_same_address(other, one)


@given(st.text(max_size=20), st.text(max_size=20))
def test_addresses_are_equal_only_by_ascii_case_composition_or_a_labels(one: str, other: str) -> None:
    """Letters outside ASCII are compared exactly: local parts are equal after NFC and lower-casing of ASCII letters."""
    if fields.is_same_address(f"{one}@example.com", f"{other}@example.com"):
        small = [
            "".join(char.lower() if char.isascii() else char for char in unicodedata.normalize("NFC", text))
            for text in (one, other)
        ]
        assert small[0] == small[1]
