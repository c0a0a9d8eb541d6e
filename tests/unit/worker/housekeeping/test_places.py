"""What lies in folders: only files of ours are told of as such, and each is looked at again before it goes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hivemind_worker.artifacts import store
from hivemind_worker.runtime.sandbox import workspaces as sandboxes
from hivemind_worker.telemetry import logs as telemetry
from hivemind_worker.worker.housekeeping import artifacts, disks, logs, workspaces

LONG_AGO = 1_000_000.0


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def rotated(folder: Path) -> None:
    """Have the real log write so much that two files are put aside."""
    written = telemetry.configure("worker", style="json", log_dir=folder, file_bytes=600, file_count=2)
    log = telemetry.StructuredLogger("test", "node-1")
    for number in range(12):
        log.log_system_event("something_happened", {"number": number})
    assert written.close()


async def test_of_a_log_folder_only_files_put_aside_by_us_may_go(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rotated(tmp_path)
    capfd.readouterr()
    (tmp_path / "worker.log.7").write_text("another program's, of the same name\n")
    (tmp_path / "worker.log.8").symlink_to(tmp_path / "worker.log.1")
    (tmp_path / "worker.log.9").write_text(
        json.dumps({"timestamp": 1, "event_type": "x", "details": {}, "level": 1, "z": 1})
    )
    (tmp_path / "syslog.1").write_text("the system's\n")
    place = logs.Logs(tmp_path, ("worker", "pool"))
    found = {Path(thing.name).name: thing for thing in await place.look()}
    assert sorted(found) == ["worker.log.1", "worker.log.2", "worker.log.7", "worker.log.8", "worker.log.9"]
    assert [name for name, thing in sorted(found.items()) if not thing.held] == ["worker.log.1", "worker.log.2"]
    assert await place.remove(found["worker.log.2"])
    os.utime(tmp_path / "worker.log.1", (LONG_AGO, LONG_AGO))  # as if rotated between the look and now
    assert not await place.remove(found["worker.log.1"])
    assert names(tmp_path) == [
        "syslog.1", "worker.log", "worker.log.1", "worker.log.7", "worker.log.8", "worker.log.9",
    ]  # fmt: skip


async def test_no_log_folder_is_no_trouble(tmp_path: Path) -> None:
    assert await logs.Logs(tmp_path / "none", ("worker",)).look() == []


async def test_artifacts_that_somebody_needs_are_held(tmp_path: Path) -> None:
    files = store.Store(tmp_path)
    files.prepare()
    undelivered, old, again = files.put(b"undelivered"), files.put(b"old"), files.put(b"again")
    upload = files.upload("0" * 64, 10)
    upload.close()
    needed = {undelivered.sha256}
    place = artifacts.Artifacts(tmp_path, files, lambda: needed)
    found = {thing.name: thing for thing in await place.look()}
    assert sorted(found) == sorted([undelivered.sha256, old.sha256, again.sha256, f"{'0' * 64}.upload"])
    assert [name for name, thing in found.items() if thing.held] == [undelivered.sha256]
    assert await place.remove(found[old.sha256])
    assert await place.remove(found[f"{'0' * 64}.upload"])
    needed.add(again.sha256)  # a task has begun to need it since
    assert not await place.remove(found[again.sha256])
    assert not await place.remove(found[old.sha256])
    assert sorted(kept.name for kept in files.kept()) == sorted([undelivered.sha256, again.sha256])


async def test_what_an_earlier_process_left_to_be_delivered_stays(tmp_path: Path) -> None:
    files = store.Store(tmp_path)
    files.prepare()
    left = files.put(b"left by an earlier process")
    os.utime(files.path(left.sha256), (LONG_AGO, LONG_AGO))
    mine = files.put(b"mine")
    place = artifacts.Artifacts(tmp_path, files, frozenset, since=LONG_AGO + 1)
    held = {thing.name: thing.held for thing in await place.look()}
    assert held == {left.sha256: "an earlier process left it to be delivered", mine.sha256: ""}


async def test_only_workspaces_that_nobody_has_locked_are_abandoned(tmp_path: Path) -> None:
    in_use = sandboxes.Workspace.made(tmp_path, None)
    dead = tmp_path / "hivemind-workspace-dead"
    dead.mkdir()
    (dead / "left").write_bytes(b"x" * 10_000)
    others = tmp_path / "somebody-elses"
    others.mkdir()
    place = workspaces.Workspaces(tmp_path)
    assert not [thing for thing in await place.look() if thing.abandoned]  # it may have been made this moment
    place = workspaces.Workspaces(tmp_path, young_seconds=0.0)
    found = {Path(thing.name).name: thing for thing in await place.look()}
    assert sorted(found) == sorted([in_use.folder.name, dead.name])
    assert found[dead.name].abandoned
    assert found[dead.name].size_bytes >= 10_000
    assert found[in_use.folder.name].held
    assert await place.remove(found[dead.name])
    assert not await place.remove(found[in_use.folder.name])
    assert names(tmp_path) == sorted([in_use.folder.name, others.name])
    await in_use.remove()


async def test_two_folders_of_one_disk_are_told_as_one(tmp_path: Path) -> None:
    here = disks.of(tmp_path)
    assert here
    assert disks.of(tmp_path / "not" / "made" / "yet") == here
    measured = await disks.measure([here, here, "/nowhere/at/all", ""])
    assert list(measured) == [here]
    assert 0 < measured[here].percent <= 100
