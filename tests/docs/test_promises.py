"""Every clause of the promises has a test, and every mark names a clause."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.promises import PENDING, clauses, delivery_clauses, marked_tests, paragraph, passages, sentences

CONTRACT = (Path(__file__).parents[2] / "docs" / "contract.md").read_text()
CLAUSES, TESTS = clauses(), marked_tests()


def test_clauses_of_each_sentence_are_its_text() -> None:
    joined: dict[str, str] = {}
    for id, text in delivery_clauses().items():
        number = id.rstrip("abcdefghijklmnopqrstuvwxyz")
        joined[number] = f"{joined.get(number, '')} {text}".strip()
    assert joined == sentences(CONTRACT)


@pytest.mark.parametrize("name", passages())
def test_clauses_of_each_passage_are_its_text(name: str) -> None:
    passage = passages()[name]
    assert " ".join(passage.clauses.values()) == " ".join(paragraph(CONTRACT, begins) for begins in passage.begins)


def test_every_clause_has_an_id_of_its_own() -> None:
    assert len(CLAUSES) == len(delivery_clauses()) + sum(len(each.clauses) for each in passages().values())


@pytest.mark.parametrize("id", CLAUSES)
def test_clause_has_a_test_unless_it_does_not_run_yet(id: str) -> None:
    assert bool(TESTS.get(id)) is not (PENDING in CLAUSES[id])


def test_marks_name_existing_clauses() -> None:
    assert set(TESTS) <= set(CLAUSES)


def test_contract_has_twelve_sentences() -> None:
    assert list(sentences(CONTRACT)) == [str(number) for number in range(1, 13)]
    assert re.search(r"^## 5\. Delivery, in twelve sentences$", CONTRACT, re.MULTILINE)
