"""The private folder of a command: gone with it, and what killed commands left is gone with the next one."""

import os
import tempfile
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


def test_only_what_nobody_holds_and_is_no_longer_young_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / f"{folders.PREFIX}link").symlink_to(target)
    (tmp_path / "hivemind-other").mkdir()
    dead, young = (tmp_path / f"{folders.PREFIX}{name}" for name in ("dead", "young"))
    for folder in (dead, young):
        folder.mkdir()
        (folder / "pool.sqlite").write_text("x")
    with folders.private() as held:
        for old in (dead, held, target, tmp_path / "hivemind-other"):
            _age(old)
        folders.sweep(tmp_path)
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {"target", f"{folders.PREFIX}link", "hivemind-other", young.name, held.name}
    assert {path.name for path in tmp_path.iterdir()} == left - {held.name}
