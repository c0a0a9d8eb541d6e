"""The boot that the pool last heard of: the oldest one that it has not outlived in words."""

from __future__ import annotations

from pathlib import Path

from hivemind_worker.journal import former_boot


def test_the_first_is_kept_until_it_is_forgotten(tmp_path: Path) -> None:
    journal = tmp_path / "worker.journal"
    assert former_boot.keep(journal, "") == ""
    assert former_boot.keep(journal, "boot-1") == "boot-1"
    assert former_boot.keep(journal, "boot-2") == "boot-1"
    assert former_boot.keep(journal, "") == "boot-1"
    former_boot.forget(journal)
    assert former_boot.keep(journal, "") == ""
    assert former_boot.keep(journal, "boot-2") == "boot-2"
    former_boot.forget(journal)
    former_boot.forget(journal)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_id_harms_nobody(tmp_path: Path) -> None:
    journal = tmp_path / "worker.journal"
    former_boot.path_beside(journal).write_bytes(b"\xff\0" * 1_000)
    assert len(former_boot.keep(journal, "boot-1")) == former_boot.MAX_CHARS
