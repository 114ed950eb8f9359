"""Tests of the table of sentences that `make faults` prints."""

from __future__ import annotations

from tests.faults.promise_table import PromiseTable


def test_run_counts_once_for_each_sentence_of_its_test() -> None:
    table = PromiseTable()
    table.add(["9a", "9b", "11d"], "kill", 100, 120, 0)
    table.add(["9a"], "kill", 10, 10, 2)
    table.add([], "control", 5, 5, 5)
    rows = {row[0]: row[2:] for row in table.rows()}
    assert rows["9"] == (1, 2, 110, 130, 2)
    assert rows["11"] == (1, 1, 100, 120, 0)
    assert rows["1"] == (0, 0, 0, 0, 0)
    assert list(rows)[:12] == [str(number) for number in range(1, 13)]


def test_every_sentence_has_tests_and_a_session_without_faults_prints_nothing() -> None:
    table = PromiseTable()
    assert not list(table.rows())
    table.add(["1a"], "power cut", 1, 1, 0)
    assert all(isinstance(row[1], int) and row[1] > 0 for row in list(table.rows())[:12])
