"""The private folder of a command: gone with it, and what killed commands left is gone with the next one."""

import os
import tempfile
import threading
from pathlib import Path

import pytest

from hivemind_worker.cli import folders


def _age(folder: Path) -> None:
    os.utime(folder, (1, 1))


def test_it_is_removed_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def interrupted() -> None:
        with folders.private() as folder:
            (folder / "pool.sqlite").write_text("x")
            assert folder.stat().st_mode & 0o777 == 0o700
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_only_what_nobody_holds_is_swept_however_young(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / f"{folders.PREFIX}link").symlink_to(target)
    (tmp_path / "hivemind-other").mkdir()
    dead, fresh = (tmp_path / f"{folders.PREFIX}{name}" for name in ("dead", "young"))
    for folder in (dead, fresh):
        folder.mkdir()
        (folder / "pool.sqlite").write_text("x")
    _age(dead)
    with folders.private() as held:
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {"target", f"{folders.PREFIX}link", "hivemind-other", held.name}, "gone before the command began"
        for old in (held, target, tmp_path / "hivemind-other"):
            _age(old)
        folders.sweep()
        assert {path.name for path in tmp_path.iterdir()} == left
        fresh.mkdir()
    assert {path.name for path in tmp_path.iterdir()} == left - {held.name}, "and what came meanwhile as it ended"


def test_a_folder_that_is_being_made_is_not_swept_from_under_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    over = threading.Event()

    def sweep() -> None:
        while not over.is_set():
            folders.sweep()

    sweeping = threading.Thread(target=sweep)
    sweeping.start()
    try:
        for _ in range(300):
            with folders.private() as folder:
                (folder / "pool.sqlite").write_text("x")
    finally:
        over.set()
        sweeping.join()
    assert not list(tmp_path.iterdir())
