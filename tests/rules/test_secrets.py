from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from artcafe.rules.secrets import derive

SECRET = b"s" * 32


@given(st.text(), st.text())
def test_every_label_has_its_own_key(one: str, other: str) -> None:
    assert (derive(SECRET, one) == derive(SECRET, other)) is (one == other)


def test_another_secret_gives_another_key() -> None:
    assert derive(SECRET, "tokens") != derive(b"t" * 32, "tokens")


def test_key_has_the_requested_length() -> None:
    assert len(derive(SECRET, "tokens")) == 32
    assert len(derive(SECRET, "tokens", 16)) == 16


def test_label_derives_the_same_key_in_every_version() -> None:
    # Data sealed or signed before an upgrade must be readable after it.
    assert derive(SECRET, "tokens").hex() == "1051f278a7ef14ace73c9965402910eb7705d7b2b69029a26d97f170db35bf61"
