"""A node's name is made once and kept, by one of many at once."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from hivemind_worker import errors
from hivemind_worker.settings import node_identity


def test_a_name_that_is_set_is_taken_and_not_written_down(tmp_path: Path) -> None:
    assert node_identity.keep(tmp_path, "worker-001") == "worker-001"
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_made_once_and_kept(tmp_path: Path) -> None:
    state = tmp_path / "not" / "there"
    name = node_identity.keep(state)
    assert name.startswith("worker-")
    assert node_identity.keep(state) == name
    assert [path.name for path in state.iterdir()] == ["node-id"], "nothing staged is left"
    assert node_identity.keep(tmp_path / "other") != name


def test_many_at_once_agree(tmp_path: Path) -> None:
    names: list[str] = []
    start = threading.Barrier(8)

    def one() -> None:
        start.wait()
        names.append(node_identity.keep(tmp_path))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 8
    assert len(set(names)) == 1


def test_a_file_system_without_hard_links_keeps_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    name = node_identity.keep(tmp_path)
    assert node_identity.keep(tmp_path) == name
    assert [path.name for path in tmp_path.iterdir()] == ["node-id"]


@pytest.mark.parametrize("content", [b"", b"../../etc\n", b"\xff\xfe", b"a b", b"x" * 65, b"a\nb"])
def test_a_file_that_holds_no_name_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "node-id").write_bytes(content)
    with pytest.raises(errors.BadSettings, match="holds no node name: delete the file"):
        node_identity.keep(tmp_path)


def test_a_place_that_is_no_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.BadSettings, match=r"cannot be kept in .*file"):
        node_identity.keep(tmp_path / "file")
