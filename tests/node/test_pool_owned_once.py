"""One pool per store and per folder, by whatever path another pool comes to them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from hivemind_worker import errors
from hivemind_worker.cli import holding
from hivemind_worker.pool import backup, server
from hivemind_worker.pool.store import database, locks

POOL = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from hivemind_worker.pool import server
    from hivemind_worker import errors

    async def main():
        data, store, artifacts = map(Path, sys.argv[1:])
        pool = server.NodePool(data, store_path=store, artifact_folder=artifacts)
        try:
            print("serves", await pool.start(), flush=True)
        except errors.HiveMindError as error:
            sys.exit(f"{type(error).__name__}: {error}")
        await asyncio.to_thread(sys.stdin.read)
        await pool.stop()

    asyncio.run(main())
    """
)


@contextlib.contextmanager
def another_pool(data: Path, store: Path, artifacts: Path) -> Iterator[int]:
    """A pool in a process of its own; gives its process id."""
    command = [sys.executable, "-c", POOL, *map(str, (data, store, artifacts))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin
        assert child.stdout
        assert child.stdout.readline().startswith("serves")
        try:
            yield child.pid
        finally:
            child.stdin.close()
            assert child.wait(30) == 0


def spelling(first: Path, there: Path, how: str) -> Path:
    """Return another path to ``first``, made at ``there``."""
    match how:
        case "same":
            return first
        case "relative":
            return Path(os.path.relpath(first))
        case "dots":
            return first.parent / ".." / first.parent.name / first.name
        case "symlink":
            there.symlink_to(first)
        case "symlinked folder":
            there.symlink_to(first.parent)
            return there / first.name
        case _:
            there.hardlink_to(first)
    return there


BY_PATH = ("relative", "dots", "symlinked folder")


@pytest.mark.parametrize(
    "how", ["symlink", "hard link", *(pytest.param(how, marks=pytest.mark.long) for how in ("same", *BY_PATH))]
)
async def test_a_store_has_one_pool_whatever_the_path(tmp_path: Path, how: str) -> None:
    first = tmp_path / "a" / "pool.sqlite"
    with another_pool(tmp_path / "a", first, tmp_path / "a" / "artifacts") as pid:
        path = spelling(first, tmp_path / "link", how)
        with pytest.raises(errors.StateInUse, match=rf"process {pid}.*stop it, or.*--store"):
            await server.NodePool(tmp_path / "b", store_path=path).start()
    if how != "hard link":
        second = server.NodePool(tmp_path / "b", store_path=path)
        await second.start()
        await second.stop()
    else:
        with pytest.raises(errors.BadSettings, match="2 names"):
            await server.NodePool(tmp_path / "b", store_path=path).start()


@pytest.mark.parametrize(
    "how", ["symlink", *(pytest.param(how, marks=pytest.mark.long) for how in ("same", "relative"))]
)
@pytest.mark.parametrize("which", ["state folder", "artifacts"])
async def test_a_folder_has_one_pool_whatever_the_path(tmp_path: Path, how: str, which: str) -> None:
    data, artifacts = tmp_path / "a", tmp_path / "artifacts"
    with another_pool(data, tmp_path / "first.sqlite", artifacts) as pid:
        if which == "state folder":
            data, artifacts = spelling(data, tmp_path / "link", how), tmp_path / "others"
        else:
            data, artifacts = tmp_path / "b", spelling(artifacts, tmp_path / "link", how)
        second = server.NodePool(data, store_path=tmp_path / "second.sqlite", artifact_folder=artifacts)
        with pytest.raises(errors.StateInUse, match=rf"process {pid}.*stop it, or.*of its own"):
            await second.start()
    await second.start()
    await second.stop()


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0,
    reason="needs the right to mount",
)
@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_bind_mount_leads_to_the_same_store(tmp_path: Path, what: str) -> None:
    first, there = tmp_path / "a" / "pool.sqlite", tmp_path / "mounted"
    with another_pool(tmp_path / "a", first, tmp_path / "a" / "artifacts"):
        source, store = (first.parent, there / first.name) if what == "folder" else (first, there)
        there.mkdir() if what == "folder" else there.touch()
        script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        command = ["unshare", "-m", "sh", "-c", script, "sh", str(source), str(there)]
        command += [sys.executable, "-c", POOL, str(tmp_path / "b"), str(store), str(tmp_path / "c")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert ended.returncode == 1
        assert "StateInUse: another pool" in ended.stderr


def test_a_store_mounted_as_a_single_file_is_refused(tmp_path: Path) -> None:
    path, table = tmp_path / "pool.sqlite", tmp_path / "mountinfo"
    path.touch()
    table.write_text(f"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n22 21 8:1 /x {path} rw - ext4 /dev/sda1 rw\n")
    with pytest.raises(errors.BadSettings, match="mount the folder"):
        database.check_one_name(path, table)


async def test_pools_in_one_process_are_two_pools(tmp_path: Path) -> None:
    first = server.NodePool(tmp_path)
    await first.start()
    (tmp_path / "link").symlink_to(tmp_path / "pool.sqlite")
    with pytest.raises(errors.StateInUse, match=f"process {os.getpid()}"):
        await server.NodePool(tmp_path / "b", store_path=tmp_path / "link").start()
    await first.stop()


@pytest.mark.parametrize("name", ["/", "."])
async def test_a_store_that_is_a_folder_is_refused_in_words(tmp_path: Path, name: str) -> None:
    pool = server.NodePool(tmp_path, store_path=tmp_path / name)
    with pytest.raises(errors.BadSettings, match="is a folder: name a file"):
        await pool.start()


NO_LOCKS = OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
"""What `flock` gives on a network file system whose server grants no locks."""


def _refuse(_fd: int, _operation: int) -> None:
    raise NO_LOCKS


def test_a_file_system_without_locks_is_not_taken_for_another_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = locks.InodeLock(tmp_path / "pool.sqlite", "move it")
    monkeypatch.setattr(fcntl, "flock", _refuse)
    with pytest.raises(errors.BadSettings, match=r"pool\.sqlite .*No locks available.*local disk"):
        lock.take()


def test_a_worker_s_folder_without_locks_is_the_owners_to_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", _refuse)
    with pytest.raises(errors.BadSettings, match=r"No locks available.*local disk"), holding.folder(tmp_path):
        pass


@pytest.mark.parametrize("folder", ["", "b"])
def test_no_backup_is_made_by_a_second_name_of_the_store(tmp_path: Path, folder: str) -> None:
    store = tmp_path / "a" / "pool.sqlite"
    with another_pool(tmp_path / "a", store, tmp_path / "a" / "artifacts"):
        second = tmp_path / folder / "second.sqlite"
        second.parent.mkdir(exist_ok=True)
        second.hardlink_to(store)
        artifacts, target = tmp_path / "a" / "artifacts", tmp_path / "backup"
        for name in (second, store):
            with pytest.raises(errors.BadSettings, match="2 names"):
                backup.make(backup.Folders(name, tmp_path / "a" / "logs", artifacts), target)
        second.unlink()
        backup.make(backup.Folders(store, tmp_path / "a" / "logs", artifacts), target)


@pytest.mark.parametrize(
    ("path", "problem"),
    [(":memory:", "names no file"), ("/dev/null", "no regular file"), ("/tmp", "a folder")],
)
async def test_what_is_no_file_is_refused_as_a_store(tmp_path: Path, path: str, problem: str) -> None:
    with pytest.raises(errors.BadSettings, match=problem):
        await server.NodePool(tmp_path, store_path=Path(path)).start()
