"""Tests of the table of sentences that `make faults` prints."""

from __future__ import annotations

from tests.faults.fault_tables import FaultTables
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


def test_tables_of_several_processes_are_merged() -> None:
    merged = FaultTables()
    for fault, failures in (("kill", 0), ("full disk", 1)):
        part = FaultTables()
        part.rows["work queues"].append((fault, 7))
        part.promises.add(["9a"], fault, 10, 12, failures)
        part.self_tests.append(("queue_checker.py", 3, failures))
        merged.add(part.encoded())
    lines = merged.text(seed=5).splitlines()
    assert {"| kill | 7 |", "| full disk | 7 |", "| queue_checker.py | 6 | 1 |"} <= set(lines)
    (nine,) = [line for line in lines if line.startswith("| 9 |")]
    assert nine.endswith("| 2 | 2 | 20 | 24 | 1 |")
    assert not [line for line in lines if line == "## what clients saw"], "a table without rows is not printed"
