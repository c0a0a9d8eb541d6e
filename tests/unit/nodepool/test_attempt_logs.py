"""Output of attempts: each chunk once, the middle given up, a torn end cut off."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.nodepool import attempt_logs


def chunk(sequence: int, data: bytes = b"x", offset: int | None = None) -> attempt_logs.Chunk:
    return attempt_logs.Chunk(sequence, 1, sequence if offset is None else offset, data)


def all_of(logs: attempt_logs.AttemptLogs, task_id: str = "t", start: int = 0) -> list[attempt_logs.Chunk]:
    return list(logs.read(task_id, 1, start, 2**30).chunks)


def test_chunks_are_kept_once_in_order_over_a_restart(tmp_path: Path) -> None:
    logs = attempt_logs.AttemptLogs(tmp_path)
    assert logs.read("t", 1, 0, 10).chunks == ()
    assert logs.append("t", 1, [chunk(1), chunk(0), chunk(1, b"another")]) == 2
    again = attempt_logs.AttemptLogs(tmp_path)
    assert again.append("t", 1, [chunk(0), chunk(1), chunk(2)]) == 3
    assert all_of(again) == [chunk(0), chunk(1), chunk(2)]
    assert all_of(again, start=2) == [chunk(2)]
    assert all_of(again, "other") == []
    assert again.append("t", 1, []) == 3
    again.remove("t", 1)
    assert again.next_sequence("t", 1) == 0


def test_a_gap_is_accepted_and_shows(tmp_path: Path) -> None:
    logs = attempt_logs.AttemptLogs(tmp_path)
    assert logs.append("t", 1, [chunk(0), chunk(7)]) == 8
    assert logs.append("t", 1, [chunk(3)]) == 8
    assert [each.sequence for each in all_of(logs)] == [0, 7]


def test_pages_follow_one_another_without_reading_twice(tmp_path: Path) -> None:
    logs = attempt_logs.AttemptLogs(tmp_path, segment_bytes=100)
    logs.append("t", 1, [chunk(number, b"y" * 30) for number in range(6)])
    first = logs.read("t", 1, 0, 60)
    second = logs.read("t", 1, first.chunks[-1].sequence + 1, 60, first.end)
    assert [each.sequence for each in (*first.chunks, *second.chunks)] == [0, 1, 2, 3]
    logs.append("t", 1, [chunk(6)])
    rest = logs.read("t", 1, 4, 10**6, second.end)
    assert [each.sequence for each in rest.chunks] == [4, 5, 6]
    assert logs.read("t", 1, 7, 10, rest.end).chunks == ()


def test_the_middle_of_a_long_output_is_given_up(tmp_path: Path) -> None:
    logs = attempt_logs.AttemptLogs(tmp_path, segment_bytes=1_000)
    for number in range(1_000):
        logs.append("t", 1, [chunk(number, b"z" * 100, number * 100)])
    kept = all_of(logs)
    numbers = [each.sequence for each in kept]
    assert numbers[0] == 0
    assert numbers[-1] == 999
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 5_000
    assert sum(before + 1 != after for before, after in itertools.pairwise(numbers)) == 1
    assert attempt_logs.AttemptLogs(tmp_path, 1_000).next_sequence("t", 1) == 1_000


@given(st.integers(0, 300))
def test_whatever_a_crash_leaves_of_the_end(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        logs = attempt_logs.AttemptLogs(Path(folder))
        logs.append("t", 1, [chunk(number, bytes([number]) * 20) for number in range(7)])
        (file,) = (path for path in Path(folder).rglob("*") if path.is_file())
        content = file.read_bytes()
        file.write_bytes(content[: max(0, len(content) - cut)])
        again = attempt_logs.AttemptLogs(Path(folder))
        following = again.next_sequence("t", 1)
        assert following == max(0, (len(content) - cut) // (len(content) // 7))
        again.append("t", 1, [chunk(number, bytes([number]) * 20) for number in range(following, 7)])
        assert file.read_bytes() == content


def test_no_id_becomes_a_path(tmp_path: Path) -> None:
    logs = attempt_logs.AttemptLogs(tmp_path / "logs")
    logs.append("../../escaped", 1, [chunk(0)])
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
