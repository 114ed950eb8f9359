"""How many processes a machine is taken to carry."""

from __future__ import annotations

from pathlib import Path

import pytest

from artcafe.errors import StartRefused
from artcafe.process_group.sizing import PROCESS_BYTES, SHARED_BYTES, available_bytes, count_processes, processors

MB = 1024 * 1024


def machine(root: Path, available_mb: int, **files: str) -> Path:
    """A `/proc` and `/sys` with so much memory available. `files`: of the control group, `__` for `.` and `_` for a folder."""
    (root / "proc").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text(f"MemTotal: {2 * available_mb * 1024} kB\nMemAvailable: {available_mb * 1024} kB\n")
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def needed_mb(processes: int) -> int:
    return (SHARED_BYTES + processes * PROCESS_BYTES) // MB


def test_one_process_is_never_refused(tmp_path: Path) -> None:
    assert count_processes(1, root=machine(tmp_path, 1)) == 1


def test_as_many_as_memory_allows_are_taken_and_one_more_is_refused(tmp_path: Path) -> None:
    root = machine(tmp_path, needed_mb(3))

    assert count_processes(3, root=root) == 3
    with pytest.raises(
        StartRefused, match=rf"--processes is 4, and memory is left for 3: {needed_mb(3)} MB .*\n.*ask for 3 or fewer"
    ):
        count_processes(4, root=root)


def test_auto_takes_what_memory_allows_and_at_least_one(tmp_path: Path) -> None:
    assert count_processes("auto", root=machine(tmp_path / "small", 1)) == 1
    assert count_processes("auto", root=machine(tmp_path / "large", 1024 * 1024)) == processors()


def test_auto_counts_the_quota_of_the_control_group(tmp_path: Path) -> None:
    root = machine(tmp_path, 1024 * 1024, cpu__max="50000 100000")

    assert processors(root) == 1
    assert count_processes("auto", root=root) == 1


def test_a_control_group_with_less_than_the_machine_bounds_and_its_file_cache_counts_as_free(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        8000,
        memory__max=str(1000 * MB),
        memory__current=str(600 * MB),
        memory__stat=f"anon 1\ninactive_file {200 * MB}\n",
    )

    assert available_bytes(root) == 600 * MB


@pytest.mark.parametrize("limit", ["max", "", "nonsense"])
def test_a_control_group_without_a_limit_bounds_nothing(tmp_path: Path, limit: str) -> None:
    root = machine(tmp_path, 8000, memory__max=limit, memory__current="1")

    assert available_bytes(root) == 8000 * MB


def test_a_system_that_does_not_say_its_memory_bounds_nothing(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
    assert count_processes(200, root=tmp_path) == 200
