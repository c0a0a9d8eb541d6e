"""A key in a private file: what it sealed only it reads, and its digests tell nobody else anything."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hivemind_worker import errors
from hivemind_worker.filesystem import sealed


@pytest.mark.parametrize("content", [b"", b"x", b"line\nbreak \xc3\xa4\x00", bytes(1_000_000)])
def test_what_was_sealed_is_read_again(tmp_path: Path, content: bytes) -> None:
    found = sealed.Key(tmp_path / "key").seal(content, "about")
    assert sealed.Key(tmp_path / "key").unseal(found, "about") == content
    # A byte or two are found by chance in what is random.
    assert len(content) < 8 or content not in found
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_nobody_else_reads_it_and_it_is_about_nothing_else(tmp_path: Path) -> None:
    key = sealed.Key(tmp_path / "key")
    found = key.seal(b"value", "about")
    for other, content, about in (
        (sealed.Key(tmp_path / "other"), found, "about"),
        (key, found, "else"),
        (key, found[:-1] + bytes([found[-1] ^ 1]), "about"),
        (key, b"", "about"),
    ):
        with pytest.raises(ValueError, match=r"another key|format"):
            other.unseal(content, about)
    assert key.seal(b"value", "about") != found
    assert key.digest(b"value") != sealed.Key(tmp_path / "other").digest(b"value")
    assert key.digest(b"value") == sealed.Key(tmp_path / "key").digest(b"value")


def test_a_key_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(errors.BadSettings, match="holds no key"):
        sealed.Key(tmp_path / "key").seal(b"", "")
    (tmp_path / "link").symlink_to("key")
    with pytest.raises(errors.BadSettings, match="symbolic link"):
        sealed.Key(tmp_path / "link").seal(b"", "")
