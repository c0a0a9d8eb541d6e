"""A disk that is full as a worker or pool starts passes: their service is to be started again, not given up.

Exit code 78 says that a setting is wrong, and the service unit does not restart after it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pool_parts
import pytest
import small_disk

from hivemind_worker import errors
from hivemind_worker.cli import exit_codes, holding
from hivemind_worker.runtime.sandbox import workspaces
from hivemind_worker.settings import node_identity
from hivemind_worker.worker.journal import records, writer

pytestmark = pytest.mark.skipif(not small_disk.can_mount(), reason="NO RIGHT TO MOUNT: a full disk is not tested")


async def test_a_pool_whose_store_has_no_room_as_it_starts_is_not_wrongly_set(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 4) as disk:
        async with pool_parts.running(disk.path / "pool"):
            pass
        disk.fill()
        with pytest.raises(errors.BadSettings, match="disk") as caught:
            async with pool_parts.running(disk.path / "pool"):
                pass
        assert exit_codes.of_error(caught.value) == exit_codes.FAILURE
        disk.clear()
        async with pool_parts.running(disk.path / "pool") as at:
            await at.submit()


@pytest.mark.parametrize("room", [8 * 1024, 64 * 1024])
async def test_a_pool_that_has_no_room_for_a_new_store_is_not_wrongly_set(tmp_path: Path, room: int) -> None:
    with small_disk.mounted(tmp_path / "disk", 4) as disk:
        disk.fill(leave_bytes=room)
        with pytest.raises(errors.BadSettings, match="disk") as caught:
            async with pool_parts.running(tmp_path / "pool", store_path=disk.path / "pool.sqlite"):
                pass
        assert exit_codes.of_error(caught.value) == exit_codes.FAILURE


async def test_a_pool_that_can_make_no_file_beside_its_store_as_it_starts_is_not_wrongly_set(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 4, inodes=40) as disk:
        store_path = disk.path / "pool.sqlite"
        async with pool_parts.running(tmp_path / "pool", store_path=store_path):
            pass
        for number in range(disk.free_inodes):
            (disk.path / f"{number}").touch()
        with pytest.raises(errors.BadSettings, match="No space left") as caught:
            async with pool_parts.running(tmp_path / "pool", store_path=store_path):
                pass
        assert exit_codes.of_error(caught.value) == exit_codes.FAILURE


async def test_a_worker_whose_folders_cannot_be_made_on_a_full_disk_is_not_wrongly_set(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 4, inodes=40) as disk:
        (disk.path / "state").mkdir()
        disk.fill()
        with pytest.raises(errors.BadSettings) as no_name:
            node_identity.keep(disk.path / "state")
        for number in range(disk.free_inodes):
            (disk.path / f"{number}").touch()
        with pytest.raises(errors.BadSettings) as no_lock, holding.folder(disk.path / "state"):
            pass
        with pytest.raises(errors.BadSettings) as no_folder:
            await workspaces.sweep(disk.path / "temp", None)
        for caught in (no_name, no_lock, no_folder):
            assert "No space left" in str(caught.value)
            assert exit_codes.of_error(caught.value) == exit_codes.FAILURE


def test_a_folder_that_may_not_be_written_is_a_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.BadSettings) as caught, holding.folder(tmp_path / "file" / "state"):
        pass
    assert exit_codes.of_error(caught.value) == exit_codes.CONFIGURATION


@pytest.mark.parametrize("pages", range(4))
async def test_a_worker_that_has_no_room_as_its_machine_comes_back_tells_of_the_former_boot_later(
    tmp_path: Path, pages: int
) -> None:
    with small_disk.mounted(tmp_path / "disk", 4) as disk:
        path = disk.path / "worker.journal"
        path.write_bytes(records.header("boot-before"))
        disk.fill(leave_bytes=pages * 4_096)
        for _ in range(2):
            with contextlib.suppress(OSError):
                assert await _former_boots(path, "boot-present") == ("boot-before",)
        disk.clear()
        assert await _former_boots(path, "boot-next") in {("boot-before",), ("boot-present", "boot-before")}
        disk.remount(read_only=True)
        with pytest.raises(OSError, match="Read-only"):
            await _former_boots(path, "boot-last")
        disk.remount(read_only=False)
        assert (await _former_boots(path, "boot-last"))[-1] == "boot-before"


async def _former_boots(path: Path, boot_id: str) -> tuple[str, ...]:
    journal = writer.Journal(path, boot_id)
    try:
        return (await journal.open()).boot_ids
    finally:
        await journal.close()
