"""Private folders and files on a real disk: made, repaired and said, or refused; attacked by another user."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import intruder
import pytest

from hivemind_worker import errors
from hivemind_worker.filesystem import private_dir, private_file, umask

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user as well")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with intruder.open_folder() as folder:
        yield folder


@pytest.fixture(autouse=True)
def careless() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_and_the_missing_ones_above_it_are_private_whatever_the_umask(tmp_path: Path) -> None:
    made = private_dir.make(tmp_path / "a" / "b")
    assert [mode(tmp_path / "a"), mode(made)] == [0o700, 0o700]


def test_one_that_is_open_is_closed_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "state" / "node-id").write_text("x")
    with caplog.at_level(logging.WARNING):
        private_dir.make(tmp_path / "state")
    assert mode(tmp_path / "state") == 0o700
    assert "state was open to other users (mode 0755)" in caplog.text


@as_root
def test_one_that_others_use_too_is_not_closed_to_them(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "theirs").touch()
    os.chown(shared / "theirs", intruder.UID, intruder.UID)
    with pytest.raises(errors.BadSettings, match="theirs in it belongs to another user"):
        private_dir.make(shared)
    assert private_dir.make(shared, spare_shared=True) == shared
    assert mode(shared) == 0o755


@pytest.mark.parametrize("folder", ["/tmp", "/var/log"])
def test_a_folder_of_the_system_is_left_alone(folder: str) -> None:
    before = mode(Path(folder))
    with pytest.raises(errors.BadSettings, match=r"meant for everybody|belongs to another user"):
        private_dir.make(Path(folder))
    assert mode(Path(folder)) == before


@as_root
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    os.chown(tmp_path / "state", intruder.UID, intruder.UID)
    with pytest.raises(errors.BadSettings, match=rf"state belongs to another user \(uid {intruder.UID}\)"):
        private_dir.make(tmp_path / "state")
    with pytest.raises(errors.BadSettings, match="on the way to it belongs to another user"):
        private_dir.make(tmp_path / "state" / "below")


@as_root
@pytest.mark.parametrize("parent_mode", [0o777, 0o1777])
def test_a_link_that_another_user_planted_is_not_followed(open_folder: Path, parent_mode: int) -> None:
    open_folder.chmod(parent_mode)
    (target := open_folder / "target").mkdir()
    intruder.plant("import os, sys; os.symlink(sys.argv[1], sys.argv[2])", target, open_folder / "state")
    for folder in (open_folder / "state", open_folder / "state" / "below"):
        with pytest.raises(errors.BadSettings, match=r"symbolic link of another user|written to by everybody"):
            private_dir.make(folder)
    assert not list(target.iterdir())


def test_a_link_of_our_own_is_the_owner_s_decision(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o755)
    (tmp_path / "state").symlink_to("disk")
    assert private_dir.make(tmp_path / "state") == tmp_path / "disk"
    assert mode(tmp_path / "disk") == 0o700
    (tmp_path / "ring").symlink_to("ring")
    with pytest.raises(errors.BadSettings, match="ring of symbolic links"):
        private_dir.make(tmp_path / "ring")


def test_a_default_acl_above_gives_nobody_a_way_in(tmp_path: Path) -> None:
    # Version 2; the owner, user 54321, the group, the mask and others may do anything in what is made here.
    entries = [(1, 7, 0xFFFFFFFF), (2, 7, intruder.UID), (4, 7, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 7, 0xFFFFFFFF)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", acl)
    except OSError:
        pytest.skip("this file system has no ACLs")
    folder = private_dir.make(tmp_path / "state")
    private_file.write(folder / "journal", b"x")
    assert [mode(folder), mode(folder / "journal")] == [0o700, 0o600]
    assert "system.posix_acl_default" not in os.listxattr(folder)


@as_root
def test_temporary_folders_are_not_made_where_another_user_could_take_their_place(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(open_folder))
    shutil.rmtree(private_dir.temporary("hivemind-run-"))
    open_folder.chmod(0o777)
    with pytest.raises(errors.BadSettings, match=r"TMPDIR .* may be written to by everybody"):
        private_dir.temporary("hivemind-run-")
    os.chown(open_folder, intruder.UID, intruder.UID)
    with pytest.raises(errors.BadSettings, match=r"TMPDIR .* belongs to another user"):
        private_dir.temporary("hivemind-run-")


def test_files_are_private_and_those_that_were_not_are_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    private_file.write(tmp_path / "new", "x")
    (tmp_path / "old").write_text("longer")
    (tmp_path / "old").chmod(0o666)
    private_file.write(tmp_path / "old", "new")
    assert [mode(tmp_path / "new"), mode(tmp_path / "old")] == [0o600, 0o600]
    assert (tmp_path / "old").read_text() == "new"
    assert "old was open to other users (mode 0666)" in caplog.text


def test_nothing_is_written_through_links_or_into_pipes(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "hard").hardlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    for name, problem in (("link", "symbolic link"), ("hard", "2 names"), ("pipe", "no regular file")):
        with pytest.raises(OSError, match=problem):
            private_file.write(tmp_path / name, "ours")
        with pytest.raises(OSError, match=problem.replace("2 names", "exists|2 names")):
            private_file.open_fd(tmp_path / name, os.O_RDWR)
    with pytest.raises(OSError, match="no regular file"):
        private_file.make(tmp_path / "pipe")
    assert (tmp_path / "target").read_text() == "theirs"


@as_root
def test_nobody_else_can_connect_to_a_socket_even_in_an_open_folder(open_folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        private_file.bind(listener, str(open_folder / "socket"))
        listener.listen()
        assert intruder.reach(open_folder) == [f"listed {open_folder}"]


def test_output_that_the_user_asked_for_has_his_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(umask, "USER", 0o027)
    umask.restrict()
    umask.make_output_dir(tmp_path / "a" / "b")
    assert [mode(tmp_path / "a"), mode(tmp_path / "a" / "b")] == [0o750, 0o750]
