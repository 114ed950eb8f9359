from __future__ import annotations

import string

import pytest

from artcafe.errors import REGISTRY, ArtcafeError, ChannelNotFound, UnknownError, from_wire

KINDS = sorted((kind for kind in REGISTRY.values() if kind.__module__ == "artcafe.errors"), key=lambda kind: kind.code)
"""Without those that a test or another module made."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_a_text_is_built_from_the_facts_that_the_error_has(kind: type[ArtcafeError]) -> None:
    facts = getattr(kind, "__dataclass_fields__", {})
    assert {name for _, name, _, _ in string.Formatter().parse(kind.text) if name} <= facts.keys()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_an_error_that_the_other_end_told_can_be_shown_and_raised_without_its_facts(kind: type[ArtcafeError]) -> None:
    told = from_wire(kind.code, "what they said")
    assert type(told) is kind
    assert str(told) == "what they said"
    assert repr(told) == f"{kind.__name__}('what they said')"


def test_an_error_of_our_own_is_shown_with_its_text() -> None:
    assert repr(ChannelNotFound("chn_1")) == f'ChannelNotFound("{ChannelNotFound("chn_1")}")'


def test_a_code_of_a_newer_peer_is_kept_in_the_text() -> None:
    told = from_wire("tea_is_cold", "brew again")
    assert type(told) is UnknownError
    assert str(told) == "tea_is_cold: brew again"


def test_what_ends_a_connection_for_good_is_not_called_temporary() -> None:
    """4000 to 4499 come back, 4500 to 4999 do not; an error that does not end a connection has no code."""
    for kind in KINDS:
        if kind.close is not None:
            assert 4000 <= kind.close <= 4999, kind
            assert not (kind.temporary and kind.close >= 4500), kind
