"""Every clause of the delivery promise has a test, and every mark names a clause."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.promises import PENDING, clauses, marked_tests, sentences

CONTRACT = (Path(__file__).parents[2] / "docs" / "contract.md").read_text()
CLAUSES, TESTS = clauses(), marked_tests()


def test_clauses_of_each_sentence_are_its_text() -> None:
    joined: dict[str, str] = {}
    for id, text in CLAUSES.items():
        number = id.rstrip("abcdefghijklmnopqrstuvwxyz")
        joined[number] = f"{joined.get(number, '')} {text}".strip()
    assert joined == sentences(CONTRACT)


@pytest.mark.parametrize("id", CLAUSES)
def test_clause_has_a_test_unless_it_does_not_run_yet(id: str) -> None:
    assert bool(TESTS.get(id)) is not CLAUSES[id].startswith(PENDING)


def test_marks_name_existing_clauses() -> None:
    assert set(TESTS) <= set(CLAUSES)


def test_contract_has_twelve_sentences() -> None:
    assert list(sentences(CONTRACT)) == [str(number) for number in range(1, 13)]
    assert re.search(r"^## 5\. Delivery, in twelve sentences$", CONTRACT, re.MULTILINE)
