"""A rewriting that comes to nothing takes nothing: no record, and none of the disk's room."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from pathlib import Path

import pytest
import small_disk

from hivemind_worker.worker.journal import compaction, reader, records, writer

MIB = 1024 * 1024
KILLED = """
import os, sys
from pathlib import Path
from hivemind_worker.worker.journal import compaction
def lines():
    yield bytes(1 << 20)
    os.kill(os.getpid(), 9)
compaction.prepare(Path(sys.argv[1]), lines(), "")
"""


def accepted(number: int, task: bytes = b"task") -> records.Accepted:
    return records.Accepted(f"t{number}", 1, task)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.skipif(not small_disk.can_mount(), reason="NO RIGHT TO MOUNT: a full disk is not tested")
async def test_what_has_no_room_to_be_rewritten_is_appended_to(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "state", 32) as disk:
        journal = writer.Journal(disk.path / "journal")
        await journal.open()
        await journal.append(accepted(0, bytes(2 * MIB)))
        await journal.append(accepted(1, bytes(8 * MIB)))
        disk.fill(leave_bytes=MIB)
        await journal.append(records.Closed("t1", 1, "done"))
        for number in range(2, 100):
            await journal.append(accepted(number))
        await journal.close()
        assert names(disk.path) == {"journal", "filler"}
        found = reader.read(disk.path / "journal").holdings
        assert {key.task_id for key in found.attempts} == {"t0", *(f"t{number}" for number in range(2, 100))}


async def test_a_rewriting_that_failed_is_not_tried_again_with_each_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = writer.Journal(tmp_path / "journal")
    await journal.open()
    await journal.append(accepted(0, bytes(8 * MIB)))
    tries = 0

    def refused(*_: object) -> Path:
        nonlocal tries
        tries += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(compaction, "prepare", refused)
        await journal.append(records.Closed("t0", 1, "done"))
        for number in range(1, 100):
            await journal.append(accepted(number))
        assert tries == 1
    await journal.append(accepted(100, bytes(writer.PROBE_BYTES)))
    await journal.close()
    assert (tmp_path / "journal").stat().st_size < MIB


async def test_what_a_killed_one_had_written_is_removed_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = writer.Journal(path)
    await journal.open()
    await journal.close()
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, path)
    assert await killed.wait() == -signal.SIGKILL
    assert names(tmp_path) == {"journal", "journal.new"}
    journal = writer.Journal(path)
    await journal.open()
    await journal.close()
    assert names(tmp_path) == {"journal"}


@pytest.mark.skipif(not small_disk.can_mount(), reason="NO RIGHT TO MOUNT: a full disk is not tested")
@pytest.mark.parametrize("damage", [b"damaged\n", b""])
async def test_a_damaged_one_that_has_no_room_is_set_aside_once(tmp_path: Path, damage: bytes) -> None:
    """Its service starts the worker again and again. Damage of nothing: no first line."""
    with small_disk.mounted(tmp_path / "state", 32) as disk:
        path = disk.path / "journal"
        head = records.header("") if damage else b"something else\n"
        content = head + damage + records.encode(accepted(0, bytes(2 * MIB)))
        path.write_bytes(content)
        disk.fill()
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                await writer.Journal(path).open()
            assert names(disk.path) == {"journal", "filler"}
            assert path.read_bytes() == content
        disk.clear()
        journal = writer.Journal(path)
        found = await journal.open()
        await journal.close()
        assert found.why
        assert found.set_aside is not None
        assert names(disk.path) == {"journal", found.set_aside.name}
        assert found.set_aside.read_bytes() == content
        assert {key.task_id for key in found.holdings.attempts} == ({"t0"} if damage else set())
