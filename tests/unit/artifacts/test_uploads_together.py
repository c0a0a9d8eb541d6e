"""Uploads of one name at the same time: whatever their order, only the right content ever stands under the name."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hivemind_worker import errors
from hivemind_worker.artifacts import store as stores
from hivemind_worker.artifacts import writing

RIGHT = b"right content of twenty-six"
NAME = hashlib.sha256(RIGHT).hexdigest()


class Watched(stores.Store):
    """The store, with a moment between "verified" and "renamed" in which a test may act."""

    between: Callable[[], None] | None = None

    def _place(self, staged: Path, sha256: str) -> None:
        between, self.between = self.between, None
        if between is not None:
            between()
        super()._place(staged, sha256)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    made = Watched(tmp_path / "artifacts")
    made.prepare()
    return made


def is_sound(store: stores.Store) -> bool:
    return not store.path(NAME).exists() or store.path(NAME).read_bytes() == RIGHT


def steps(store: stores.Store, data: bytes, size: int) -> Iterator[None]:
    """One upload, a step at a time; what it is refused ends it."""
    with contextlib.suppress(errors.HiveMindError):
        upload = store.upload(NAME, size)
        with contextlib.closing(upload):
            yield
            half = len(data) // 2
            for start, piece in ((0, data[:half]), (half, data[half:])):
                upload.write(start, piece)
                yield
            store.store_upload(upload)


@pytest.mark.parametrize("wrong", [b"wrong" * 2, b"R" + RIGHT[1:], RIGHT + b" and more", b""])
def test_every_order_of_the_steps_of_two_uploads(tmp_path: Path, wrong: bytes) -> None:
    orders = set(itertools.permutations([0] * 4 + [1] * 4))
    for number, order in enumerate(sorted(orders)):
        store = stores.Store(tmp_path / str(number))
        store.prepare()
        both = (steps(store, RIGHT, len(RIGHT)), steps(store, wrong, len(wrong)))
        for turn in order:
            next(both[turn], None)
            assert is_sound(store), order
        retried = store.upload(NAME, len(RIGHT))
        retried.write(retried.offset, RIGHT[retried.offset :])
        with contextlib.suppress(writing.WrongContent):
            store.store_upload(retried)
        assert is_sound(store), order


@pytest.mark.parametrize("size", [5, len(RIGHT), len(RIGHT) + 9])
def test_an_upload_that_begins_between_the_check_and_the_rename_has_a_file_of_its_own(
    store: Watched, size: int
) -> None:
    first = store.upload(NAME, len(RIGHT))
    first.write(0, RIGHT)
    second: list[writing.Upload] = []
    store.between = lambda: second.append(store.upload(NAME, size))
    store.store_upload(first)
    with contextlib.suppress(errors.HiveMindError):
        second[0].write(0, b"wrong")
        second[0].write(second[0].offset, b"X" * (size - second[0].offset))
    assert store.path(NAME).read_bytes() == RIGHT
    with contextlib.suppress(errors.HiveMindError):
        store.store_upload(second[0])
    second[0].close()
    assert store.path(NAME).read_bytes() == RIGHT


def test_uploads_that_begin_in_the_same_moment(tmp_path: Path) -> None:
    """Two threads, many times; on two cores the order of their steps is another each time."""
    wrong = b"W" * len(RIGHT)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(150):
            store = stores.Store(tmp_path / str(number))
            store.prepare()
            together = threading.Barrier(2)

            def go(data: bytes, store: stores.Store = store, together: threading.Barrier = together) -> None:
                moves = steps(store, data, len(data))
                together.wait()
                for _ in moves:
                    pass

            threads = [threading.Thread(target=go, args=(data,)) for data in (RIGHT, wrong)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert is_sound(store), number
    finally:
        sys.setswitchinterval(interval)


def test_what_a_killed_process_had_taken_is_gone_on_with(tmp_path: Path) -> None:
    first = stores.Store(tmp_path / "artifacts")
    first.prepare()
    upload = first.upload(NAME, len(RIGHT))
    upload.write(0, RIGHT[:10])
    upload.end()  # its process is gone: the file is closed, and nobody has put it back
    again = stores.Store(tmp_path / "artifacts")
    again.prepare()
    assert again.staged(NAME) == 10
    second = again.upload(NAME, len(RIGHT))
    second.write(10, RIGHT[10:])
    again.store_upload(second)
    assert again.path(NAME).read_bytes() == RIGHT


def test_the_stage_of_an_open_upload_shows_and_stays(store: Watched) -> None:
    upload = store.upload(NAME, len(RIGHT))
    upload.write(0, RIGHT[:7])
    assert store.staged(NAME) == 7
    assert [store.discard(kept) for kept in store.kept()] == []
    upload.write(7, RIGHT[7:])
    store.store_upload(upload)
    assert store.staged(NAME) == 0
