"""Results from a capsule that lies: caps hold, names that lead anywhere are skipped, nothing half is shown whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from hivemind_worker.artifacts import store as stores
from hivemind_worker.runtime import results
from hivemind_worker.runtime.capsule import messages as m
from hivemind_worker.tasks import outcome, plan


def make(tmp_path: Path, **caps: int) -> tuple[results.Receiver, stores.Store]:
    store = stores.Store(tmp_path)
    store.prepare()
    usual = {"results_bytes": 10_000, "results_count": 100, "results_depth": 4} | caps
    return results.Receiver(store, plan.Caps(1, 1, results_seconds=1.0, **usual)), store


async def give(receiver: results.Receiver, path: bytes, content: bytes, mode: int = 0o644) -> None:
    await receiver.take(m.ResultBegin(path, mode, len(content)))
    if content:
        await receiver.take(m.ResultData(0, content))
    await receiver.take(m.ResultEnd())


def staged(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "staging").iterdir())


async def test_files_arrive_and_special_bits_do_not(tmp_path: Path) -> None:
    receiver, store = make(tmp_path)
    await give(receiver, b"a/b", b"content", 0o6755)
    await give(receiver, b"empty", b"")
    found = await receiver.finish()
    assert [(file.name, file.mode) for file in found.files] == [("a/b", 0o755), ("empty", 0o644)]
    assert b"".join(store.read(found.files[0].artifact.sha256)) == b"content"
    assert staged(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (b"../x", "name"),
        (b"/etc/passwd", "name"),
        (b"a//b", "name"),
        (b"", "name"),
        (b"\xff", "name"),
        (b"x" * 200 + b"/" + b"y" * 200 + b"/" + b"z" * 200 + b"/" + b"w" * 250 + b"/" + b"v" * 250, "name"),
        (b"a/b/c/d/e", "over cap: depth"),
    ],
)
async def test_a_name_of_no_use_is_skipped_and_the_next_is_not(tmp_path: Path, path: bytes, why: str) -> None:
    receiver, _ = make(tmp_path)
    await give(receiver, path, b"bad")
    await give(receiver, b"good", b"good")
    found = await receiver.finish()
    assert [file.name for file in found.files] == ["good"]
    assert [skipped.why.startswith(why) for skipped in found.skipped] == [True]


async def test_caps_hold_against_a_capsule_that_ignores_them(tmp_path: Path) -> None:
    receiver, _ = make(tmp_path, results_bytes=100, results_count=3)
    for number in range(5):
        await give(receiver, b"small%d" % number, b"x" * 10)
    await give(receiver, b"z", b"x" * 200)
    found = await receiver.finish()
    assert len(found.files) == 3
    assert found.capped
    assert {skipped.why for skipped in found.skipped} == {"over cap: count"}


async def test_a_file_dropped_half_way_leaves_nothing(tmp_path: Path) -> None:
    receiver, _ = make(tmp_path)
    await receiver.take(m.ResultBegin(b"half", 0o644, 100))
    await receiver.take(m.ResultData(0, b"x" * 50))
    await receiver.take(m.ResultDropped(m.Skipped.UNREADABLE))
    found = await receiver.finish()
    assert not found.files
    assert found.skipped == (outcome.SkippedFile("half", "unreadable"),)
    assert staged(tmp_path) == []


async def test_an_abort_leaves_nothing(tmp_path: Path) -> None:
    receiver, _ = make(tmp_path)
    await give(receiver, b"whole", b"x")
    await receiver.take(m.ResultBegin(b"half", 0o644, 100))
    await receiver.take(m.ResultData(0, b"x" * 50))
    await receiver._write_waiting()
    await receiver.abort()
    assert staged(tmp_path) == []


async def test_skips_beyond_the_first_hundred_are_only_counted(tmp_path: Path) -> None:
    receiver, _ = make(tmp_path)
    for number in range(150):
        await receiver.take(m.ResultSkipped(b"s%d" % number, m.Skipped.SYMLINK))
    found = await receiver.finish()
    assert len(found.skipped) == 101
    assert found.skipped[-1].why == "50 more were skipped"
    assert not found.capped


async def test_many_files_are_committed_in_between(tmp_path: Path) -> None:
    receiver, _ = make(tmp_path, results_count=1000)
    for number in range(300):
        await give(receiver, b"f%03d" % number, b"%d" % number)
    found = await receiver.finish()
    assert [file.name for file in found.files] == [f"f{number:03d}" for number in range(300)]


async def test_a_store_that_fails_is_not_passed_over(tmp_path: Path) -> None:
    receiver, _ = make(tmp_path)
    (tmp_path / "staging").rmdir()
    await give(receiver, b"x", b"x")
    with pytest.raises(OSError, match="staging"):
        await receiver.finish()
    await receiver.abort()
