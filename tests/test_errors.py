from __future__ import annotations

import string

import pytest

from artcafe import errors
from artcafe.errors import REGISTRY, ArtcafeError, ChannelNotFound, UnknownError, from_wire

KINDS = sorted((kind for kind in REGISTRY.values() if kind.__module__ == "artcafe.errors"), key=lambda kind: kind.code)
"""Errors defined in `artcafe.errors`, without those of tests and other modules."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_error_text_is_built_from_its_attributes(kind: type[ArtcafeError]) -> None:
    facts = getattr(kind, "__dataclass_fields__", {})
    assert {name for _, name, _, _ in string.Formatter().parse(kind.text) if name} <= facts.keys()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_error_from_a_peers_text_can_be_shown_and_raised(kind: type[ArtcafeError]) -> None:
    told = from_wire(kind.code, "what they said")
    assert type(told) is kind
    assert str(told) == "what they said"
    assert repr(told) == f"{kind.__name__}('what they said')"


def test_repr_contains_the_error_text() -> None:
    assert repr(ChannelNotFound("chn_1")) == f'ChannelNotFound("{ChannelNotFound("chn_1")}")'


def test_unknown_code_is_kept_in_the_text() -> None:
    told = from_wire("tea_is_cold", "brew again")
    assert type(told) is UnknownError
    assert str(told) == "tea_is_cold: brew again"


def test_close_codes_agree_with_temporary() -> None:
    """Clients reconnect after 4000 to 4499, and not after 4500 to 4999. An error that does not end a connection has no close
    code."""
    for kind in KINDS:
        if kind.close is not None:
            assert 4000 <= kind.close <= 4999, kind
            assert not (kind.temporary and kind.close >= 4500), kind


@pytest.mark.parametrize(("old", "new"), [("NoMember", errors.NotAMember), ("TooFast", errors.RateLimited)])
def test_deprecated_name_warns_and_is_the_renamed_error(old: str, new: type[ArtcafeError]) -> None:
    with pytest.warns(DeprecationWarning, match=new.__name__):
        assert getattr(errors, old) is new
