"""Output of attempts: each chunk once, the middle given up, a torn end cut off."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker.pool.api import attempt_logs


def chunk(sequence: int, data: bytes = b"x", offset: int | None = None) -> attempt_logs.Chunk:
    return attempt_logs.Chunk(sequence, 1, sequence if offset is None else offset, data)


def key(task_id: str = "t", attempt: int = 1, epoch: str = "e", run_id: str = "r") -> attempt_logs.Key:
    return attempt_logs.Key(task_id, attempt, epoch, run_id)


def all_of(logs: attempt_logs.AttemptLogs, task_id: str = "t", start: int = 0) -> list[attempt_logs.Chunk]:
    return list(logs.read(key(task_id), start, 2**30).chunks)


def test_chunks_are_kept_once_in_order_over_a_restart(tmp_path: Path) -> None:
    logs = attempt_logs.AttemptLogs(tmp_path)
    assert logs.read(key("t"), 0, 10).chunks == ()
    assert logs.append(key("t"), [chunk(1), chunk(0), chunk(1, b"another")]) == 2
    again = attempt_logs.AttemptLogs(tmp_path)
    assert again.append(key("t"), [chunk(0), chunk(1), chunk(2)]) == 3
    assert all_of(again) == [chunk(0), chunk(1), chunk(2)]
    assert all_of(again, start=2) == [chunk(2)]
    assert all_of(again, "other") == []
    assert again.append(key("t"), []) == 3
    again.remove(key("t"))
    assert again.next_sequence(key("t")) == 0


def test_a_gap_is_accepted_and_shows(tmp_path: Path) -> None:
    logs = attempt_logs.AttemptLogs(tmp_path)
    assert logs.append(key("t"), [chunk(0), chunk(7)]) == 8
    assert logs.append(key("t"), [chunk(3)]) == 8
    assert [each.sequence for each in all_of(logs)] == [0, 7]


def test_pages_follow_one_another_without_reading_twice(tmp_path: Path) -> None:
    logs = attempt_logs.AttemptLogs(tmp_path, segment_bytes=100)
    logs.append(key("t"), [chunk(number, b"y" * 30) for number in range(6)])
    first = logs.read(key("t"), 0, 60)
    second = logs.read(key("t"), first.chunks[-1].sequence + 1, 60, first.end)
    assert [each.sequence for each in (*first.chunks, *second.chunks)] == [0, 1, 2, 3]
    logs.append(key("t"), [chunk(6)])
    rest = logs.read(key("t"), 4, 10**6, second.end)
    assert [each.sequence for each in rest.chunks] == [4, 5, 6]
    assert logs.read(key("t"), 7, 10, rest.end).chunks == ()


def test_the_middle_of_a_long_output_is_given_up(tmp_path: Path) -> None:
    logs = attempt_logs.AttemptLogs(tmp_path, segment_bytes=1_000)
    for number in range(1_000):
        logs.append(key("t"), [chunk(number, b"z" * 100, number * 100)])
    kept = all_of(logs)
    numbers = [each.sequence for each in kept]
    assert numbers[0] == 0
    assert numbers[-1] == 999
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 5_000
    assert sum(before + 1 != after for before, after in itertools.pairwise(numbers)) == 1
    assert attempt_logs.AttemptLogs(tmp_path, 1_000).next_sequence(key("t")) == 1_000


@given(st.integers(0, 300))
def test_whatever_a_crash_leaves_of_the_end(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        logs = attempt_logs.AttemptLogs(Path(folder))
        logs.append(key("t"), [chunk(number, bytes([number]) * 20) for number in range(7)])
        (file,) = (path for path in Path(folder).rglob("*") if path.is_file())
        content = file.read_bytes()
        file.write_bytes(content[: max(0, len(content) - cut)])
        again = attempt_logs.AttemptLogs(Path(folder))
        following = again.next_sequence(key("t"))
        assert following == max(0, (len(content) - cut) // (len(content) // 7))
        again.append(key("t"), [chunk(number, bytes([number]) * 20) for number in range(following, 7)])
        assert file.read_bytes() == content


def test_no_id_becomes_a_path(tmp_path: Path) -> None:
    logs = attempt_logs.AttemptLogs(tmp_path / "logs")
    logs.append(key("../../escaped"), [chunk(0)])
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_output_of_another_run_or_epoch_is_never_this_ones(tmp_path: Path) -> None:
    logs = attempt_logs.AttemptLogs(tmp_path)
    for number, (epoch, attempt, run_id) in enumerate(itertools.product("ef", (1, 2), "rs")):
        mine = key(epoch=epoch, attempt=attempt, run_id=run_id)
        assert list(logs.read(mine, 0, 100).chunks) == []
        assert logs.append(mine, [chunk(0, b"%d" % number)]) == 1
        assert [each.data for each in logs.read(mine, 0, 100).chunks] == [b"%d" % number]


def test_a_run_goes_on_with_what_came_before_it_began(tmp_path: Path) -> None:
    logs = attempt_logs.AttemptLogs(tmp_path)
    before, running = key(run_id=""), key(run_id="r")
    logs.append(before, [chunk(0, b"pulling ")])
    assert [each.data for each in logs.read(running, 0, 100).chunks] == [b"pulling "]
    first = logs.read(before, 0, 100)
    assert logs.append(running, [chunk(1, b"running")]) == 2
    # A stream that was opened before the run had a name, and a reader who has read so far, go on.
    assert logs.append(before, [chunk(1, b"running"), chunk(2, b" on")]) == 3
    assert b"".join(each.data for each in logs.read(running, 1, 100, first.end).chunks) == b"running on"
    assert attempt_logs.AttemptLogs(tmp_path).next_sequence(running) == 3
    assert list(logs.read(key(run_id="another"), 0, 100).chunks) == []


def test_output_of_a_version_without_epochs_has_its_older_name(tmp_path: Path) -> None:
    old = hashlib.sha256(b"t\x001").hexdigest()[:40]
    assert attempt_logs.AttemptLogs(tmp_path).path(key(epoch="", run_id="")) == tmp_path / old[:2] / old
