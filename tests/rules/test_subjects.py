from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from artcafe.model import ChannelId
from artcafe.rules import subjects

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.from_regex(r"[A-Za-z0-9_-]{1,80}", fullmatch=True)


@given(ids)
@example("*")
@example(">")
@example("a.b")
@example("chn_1\r\nPUB x 0")
@example("x" * 5000)
@example("@agt_1")
@example("@*")
@example("@")
def test_any_id_becomes_one_token_without_wildcards_and_an_inbox_two(id: str) -> None:
    channel = ChannelId(id)

    assert re.fullmatch(r"ch\.(@\.)?[A-Za-z0-9_-]{1,65}", subjects.stored(channel))
    assert subjects.live(channel) == f"live.{subjects.stored(channel)}"


@given(ids, ids)
@example("chn_1", "chn_1 ")
@example("a" * 64, "a" * 65)
@example("a.b", "h" + "0" * 63)
def test_two_ids_never_share_a_subject(one: str, other: str) -> None:
    assert (subjects.token(one) == subjects.token(other)) is (one == other)


def test_id_generated_by_artcafe_is_its_own_token() -> None:
    assert subjects.stored(ChannelId("chn_01J")) == "ch.chn_01J"


@given(st.tuples(ids, ids, ids), st.tuples(ids, ids, ids))
@example(("a", "bc", "d"), ("ab", "c", "d"))
@example(("a", "b", "cd"), ("a", "bc", "d"))
def test_dedupe_id_is_specific_to_channel_and_sender(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    first = subjects.dedupe_id(ChannelId(one[0]), one[1], one[2])
    second = subjects.dedupe_id(ChannelId(other[0]), other[1], other[2])

    assert re.fullmatch(r"[0-9a-f]{32}", first)
    assert (first == second) is (one == other)
