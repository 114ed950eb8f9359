from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from artcafe.model import Entry, Outcome
from artcafe.rules import audit_chain

TEXT = st.text(max_size=20)
ENTRIES = st.builds(
    Entry,
    number=st.just(1),
    id=TEXT,
    time=st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)),
    action=TEXT,
    actor=TEXT,
    outcome=st.sampled_from(Outcome),
    target=st.none() | TEXT,
    facts=st.dictionaries(TEXT, TEXT, max_size=4),
    address=st.none() | TEXT,
    request_id=st.none() | TEXT,
    intent=st.none() | st.integers(0, 2**53),
    before=st.just(audit_chain.FIRST),
)


def entry_of(number: int, before: str, actor: str = "usr:a") -> Entry:
    time = datetime(2026, 11, 25, 8, 0, number, tzinfo=UTC)
    id = f"aud_{number}"
    return Entry(number=number, id=id, time=time, action="agent.create", actor=actor, outcome=Outcome.DONE, before=before)


def chained(count: int) -> list[Entry]:
    entries: list[Entry] = []
    before = audit_chain.FIRST
    for number in range(1, count + 1):
        entries.append(entry_of(number, before))
        before = audit_chain.digest(audit_chain.canonical(entries[-1]))
    return entries


@given(ENTRIES)
def test_entry_is_parsed_back_unchanged(entry: Entry) -> None:
    assert audit_chain.read(audit_chain.canonical(entry)) == entry


@given(ENTRIES)
def test_digest_can_be_computed_from_an_entry_parsed_as_json(entry: Entry) -> None:
    text = audit_chain.canonical(entry)
    again = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert hashlib.sha256(again).hexdigest() == audit_chain.digest(text)


def test_unchanged_chain_has_no_break() -> None:
    assert audit_chain.first_break([]) is None
    entries = chained(5)
    assert audit_chain.first_break(entries) is None
    assert audit_chain.first_break(entries[2:], 3, entries[2].before) is None


def test_chain_reveals_changed_removed_added_and_swapped_entries() -> None:
    entries = chained(5)
    for position in range(4):  # a change shows at the next entry; a change of the last one only to a holder of its digest
        changed = [*entries]
        changed[position] = entry_of(position + 1, entries[position].before, actor="usr:b")
        assert audit_chain.first_break(changed) == audit_chain.ChainBreak(
            position + 2, "does not contain the digest of the entry before it: one of the two was changed"
        )
        gone = entries[:position] + entries[position + 1 :]
        assert audit_chain.first_break(gone) == audit_chain.ChainBreak(
            position + 1, f"is missing: the next entry is number {position + 2}"
        )
        twice = entries[: position + 1] + entries[position:]
        broken = audit_chain.first_break(twice)
        assert broken is not None
        assert broken.number == position + 2
