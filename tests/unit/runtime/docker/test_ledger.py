"""Which images are ours: written down whole, read back with suspicion, and never a reason to fail."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hivemind_worker.runtime.docker import ledger


def test_a_record_comes_back_with_its_last_use(tmp_path: Path) -> None:
    ours = ledger.Ledger(tmp_path / "images")
    ours.note("python:3.11-slim", "sha256:aa")
    ours.note("hivemind-env:1", "sha256:bb", ledger.Kind.ENVIRONMENT)
    assert [(each.name, each.image_id, each.kind) for each in ours.records()] == [
        ("hivemind-env:1", "sha256:bb", ledger.Kind.ENVIRONMENT),
        ("python:3.11-slim", "sha256:aa", ledger.Kind.IMAGE),
    ]
    for path in (tmp_path / "images").iterdir():
        os.utime(path, (0, 1000))
    ours.used("python:3.11-slim")
    used, unused = ours.get("python:3.11-slim"), ours.get("hivemind-env:1")
    assert used is not None
    assert unused is not None
    assert abs(used.last_used - time.time()) < 60
    assert unused.last_used == 1000
    ours.forget("python:3.11-slim")
    assert [each.name for each in ours.records()] == ["hivemind-env:1"]


def test_what_is_not_ours_leaves_no_trace(tmp_path: Path) -> None:
    ours = ledger.Ledger(tmp_path / "images")
    ours.used("the-owners:1")
    ours.forget("the-owners:1")
    assert ours.get("the-owners:1") is None
    assert ours.records() == []
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b"{}", b'{"kind": "other", "name": "a"}', b"\xff\xfe"])
def test_a_torn_record_counts_as_none(tmp_path: Path, torn: bytes) -> None:
    ours = ledger.Ledger(tmp_path)
    ours.note("a:1", "sha256:aa")
    next(tmp_path.glob("*.json")).write_bytes(torn)
    assert ours.get("a:1") is None
    assert ours.records() == []


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ours = ledger.Ledger(tmp_path / "file")
    ours.note("a:1", "sha256:aa")
    assert ours.records() == []
