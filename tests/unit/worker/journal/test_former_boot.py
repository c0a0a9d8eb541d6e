"""The boots that the pool may last have heard of: all since it last heard of the present one, whatever lies there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hivemind_worker.worker.journal import former_boot, records, writer

BEFORE, PRESENT, NEXT = "boot-before", "boot-present", "boot-next"
HEADER = records.header(BEFORE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The journal of a worker that ended with the boot before."""
    journal = tmp_path / "worker.journal"
    journal.write_bytes(HEADER)
    return journal


def put(journal: Path, content: bytes) -> None:
    """That journal alone lies there."""
    for file in journal.parent.iterdir():
        file.unlink()
    journal.write_bytes(content)


async def opened(path: Path, boot_id: str) -> tuple[str, ...]:
    """Which former boots a process learns of that opens the journal, and ends."""
    journal = writer.Journal(path, boot_id)
    try:
        return (await journal.open()).boot_ids
    finally:
        await journal.close()


def test_all_are_kept_until_they_are_forgotten(tmp_path: Path) -> None:
    journal = tmp_path / "worker.journal"
    assert former_boot.keep(journal, "") == ()
    assert former_boot.keep(journal, "boot-1") == ("boot-1",)
    assert former_boot.keep(journal, "boot-2") == ("boot-2", "boot-1")
    assert former_boot.keep(journal, "boot-1") == ("boot-2", "boot-1")
    assert former_boot.keep(journal, "") == ("boot-2", "boot-1")
    former_boot.forget(journal)
    assert former_boot.keep(journal, "") == ()
    assert former_boot.keep(journal, "boot-2") == ("boot-2",)
    former_boot.forget(journal)
    former_boot.forget(journal)
    assert list(tmp_path.iterdir()) == []


async def test_of_a_hundred_boots_without_a_registration_the_first_and_the_last_are_kept(path: Path) -> None:
    for number in range(100):
        assert BEFORE in await opened(path, f"boot-{number}")
    boots = await opened(path, NEXT)
    assert len(boots) == former_boot.MAX_BOOTS
    assert (boots[0], boots[-1]) == ("boot-99", BEFORE)


@pytest.mark.parametrize("place", range(len(HEADER)))
async def test_whichever_byte_of_the_journals_first_line_is_altered_a_worker_can_begin(path: Path, place: int) -> None:
    for mask in (0x01, 0x20, 0x80, 0xFF):
        altered = bytearray(HEADER)
        altered[place] ^= mask
        put(path, bytes(altered))
        await opened(path, PRESENT)
        assert former_boot.path_beside(path).exists() == (await opened(path, PRESENT) != ())


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 64, b"\xff\0" * 1_000, b"\n", b" ", b"boot-\xe4", b"x" * 65, b"boot-\x1b[2J\r"],
    ids=range(8),
)
async def test_what_is_no_id_hides_no_boot(path: Path, content: bytes) -> None:
    """A disk gives back zeros, or garbage; the journal's own first line is whole."""
    former_boot.path_beside(path).write_bytes(content)
    assert await opened(path, PRESENT) == (BEFORE,)
    assert await opened(path, NEXT) == (PRESENT, BEFORE)


def _loop(place: Path) -> None:
    place.symlink_to(place)


def _dangling(place: Path) -> None:
    place.symlink_to(place.parent / "nowhere" / "file")


@pytest.mark.parametrize("make", [_loop, _dangling])
async def test_what_cannot_be_read_keeps_no_worker_from_its_work(path: Path, make: Callable[[Path], None]) -> None:
    make(former_boot.path_beside(path))
    assert await opened(path, PRESENT) == (BEFORE,)


async def test_a_disk_that_cannot_read_it_keeps_no_worker_from_its_work(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await opened(path, PRESENT) == (BEFORE,)
    real = Path.open

    def broken(self: Path, *args: Any, **named: Any) -> Any:
        if self == former_boot.path_beside(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return real(self, *args, **named)

    monkeypatch.setattr(Path, "open", broken)
    assert await opened(path, PRESENT) == ()
    assert await opened(path, NEXT) == (PRESENT,)


class Struck(BaseException):
    """The process ends here."""


STEPS: tuple[tuple[Any, str], ...] = (
    (os, "fsync"), (os, "fdatasync"), (Path, "replace"), (os, "write"), (Path, "unlink"), (os, "truncate"),
)  # fmt: skip


def _struck(path: Path, number: int, *, behind: bool) -> bool:
    """Begin under the present boot, and end at the step of that number; False where there is none."""
    steps = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == number and not behind:
                raise Struck
            answer = real(*args, **named)
            if steps == number:
                raise Struck
            return answer

        return call

    journal = writer.Journal(path, PRESENT)
    with pytest.MonkeyPatch.context() as patched:
        for owner, name in STEPS:
            patched.setattr(owner, name, counted(getattr(owner, name)))
        try:
            journal._open()
        except Struck:
            return True
        finally:
            journal._file.close()
    return False


@pytest.mark.parametrize("behind", [False, True])
async def test_struck_at_each_step_it_tells_all_the_same(path: Path, *, behind: bool) -> None:
    number = 1
    while _struck(path, number, behind=behind):
        for boot in (PRESENT, NEXT, PRESENT):
            assert BEFORE in await opened(path, boot), (number, boot)
        put(path, HEADER)
        number += 1
    assert number > 6  # the wait for each of the two files, for the folder behind each, and their two names


async def test_a_boot_that_the_pool_heard_of_is_told_whatever_lies_there_of_an_older_one(path: Path) -> None:
    """A power cut brings back the name of a file whose removal had not reached the disk."""
    assert await opened(path, PRESENT) == (BEFORE,)
    beside = former_boot.path_beside(path)
    content = beside.read_bytes()
    former_boot.forget(path)
    beside.write_bytes(content)
    assert await opened(path, NEXT) == (PRESENT, BEFORE)


async def test_a_boot_under_which_an_older_version_registered_is_told(path: Path) -> None:
    """That version knows nothing of the file; it writes its own boot into the journal, and leaves the file."""
    assert await opened(path, PRESENT) == (BEFORE,)
    beside = former_boot.path_beside(path)
    content = beside.read_bytes()
    put(path, records.header("boot-of-the-older-version"))
    beside.write_bytes(content)
    assert await opened(path, NEXT) == ("boot-of-the-older-version", BEFORE)


async def test_a_removal_that_the_disk_refuses_hides_no_boot(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await opened(path, PRESENT) == (BEFORE,)

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refused)
        former_boot.forget(path)
    assert await opened(path, NEXT) == (PRESENT, BEFORE)


async def test_what_is_forgotten_has_left_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await opened(path, PRESENT) == (BEFORE,)
    synced: list[list[str]] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(sorted(file.name for file in path.parent.iterdir())))
    former_boot.forget(path)
    assert synced == [["worker.journal"]]


@pytest.mark.parametrize("content", [b"", b"something else\n"])
async def test_a_journal_that_is_gone_or_no_journal_hides_no_boot_beside_it(path: Path, content: bytes) -> None:
    assert await opened(path, PRESENT) == (BEFORE,)
    beside = former_boot.path_beside(path).read_bytes()
    put(path, content)
    former_boot.path_beside(path).write_bytes(beside)
    assert await opened(path, NEXT) == (BEFORE,)
