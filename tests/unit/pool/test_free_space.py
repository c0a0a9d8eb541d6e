"""When a disk counts as too full, and when it no longer does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hivemind_worker import errors
from hivemind_worker.pool import free_space, readiness
from hivemind_worker.units import GIB, MIB


class Disk:
    """A disk of 100 GiB and a million inodes, as full as a test says."""

    def __init__(self) -> None:
        self.free_bytes = 50 * GIB
        self.free_inodes = 500_000
        self.whole_bytes = 100 * GIB
        self.whole_inodes = 1_000_000

    def stat(self, _path: Path) -> os.statvfs_result:
        blocks, free = self.whole_bytes // 4096, self.free_bytes // 4096
        return os.statvfs_result(
            (4096, 4096, blocks, free, free, self.whole_inodes, self.free_inodes, self.free_inodes, 0, 255)
        )


@pytest.fixture
def disk() -> Disk:
    return Disk()


def looking(disk: Disk, tmp_path: Path) -> tuple[free_space.FreeSpace, readiness.Readiness, list[bool]]:
    ready, heard = readiness.Readiness(), list[bool]()
    ready.listen(heard.append)
    return free_space.FreeSpace([tmp_path], tmp_path, ready, stat=disk.stat), ready, heard


async def test_below_the_mark_it_is_unready_and_ready_again_only_well_above(disk: Disk, tmp_path: Path) -> None:
    space, ready, heard = looking(disk, tmp_path)
    for free, is_ready in ((257, True), (255, False), (257, False), (319, False), (321, True), (257, True)):
        disk.free_bytes = free * MIB
        await space.look()
        assert (not ready.unready_reasons) is is_ready, free
    assert heard == [False, True]


async def test_inodes_count_too_and_a_disk_that_counts_none_has_enough(disk: Disk, tmp_path: Path) -> None:
    space, ready, _ = looking(disk, tmp_path)
    disk.free_inodes = 9_999
    await space.look()
    assert "inodes" in ready.unready_reasons[0]
    disk.free_inodes = disk.whole_inodes = 0
    await space.look()
    assert ready.unready_reasons == ()


async def test_a_small_disk_is_no_full_one(disk: Disk, tmp_path: Path) -> None:
    space, ready, _ = looking(disk, tmp_path)
    disk.whole_bytes, disk.free_bytes = 100 * MIB, 6 * MIB
    await space.look()
    assert ready.unready_reasons == ()
    space.need(5 * MIB, spare_results=False)
    with pytest.raises(errors.Unavailable):
        space.need(5 * MIB, spare_results=True)
    with pytest.raises(errors.Unavailable):
        space.need(7 * MIB, spare_results=False)


async def test_a_failed_write_is_tried_again_and_other_errors_are_none_of_the_disks(disk: Disk, tmp_path: Path) -> None:
    space, ready, heard = looking(disk, tmp_path)
    space.write_failed(OSError(2, "No such file or directory"))
    assert ready.unready_reasons == ()
    space.write_failed(OSError(28, "No space left on device"))
    assert "No space left" in "; ".join(ready.unready_reasons)
    await space.look()  # it can be written now
    assert (ready.unready_reasons, heard) == ((), [False, True])
    assert os.listdir(tmp_path) == []  # noqa: PTH208  (no blocking path method in a coroutine)
