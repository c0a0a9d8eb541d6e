"""The store: whole files under their names, uploads that go on, nothing half-written to be seen."""

from __future__ import annotations

import contextlib
import hashlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import waiting

from hivemind_worker.artifacts import store as stores
from hivemind_worker.artifacts import writing


@pytest.fixture
def store(tmp_path: Path) -> Iterator[stores.Store]:
    made = stores.Store(tmp_path / "artifacts")
    made.prepare()
    yield made
    made.close()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def staged_files(store: stores.Store) -> list[str]:
    return sorted(path.name for path in store._staging.iterdir())


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 10_000])
def test_what_was_put_is_read_back(store: stores.Store, data: bytes) -> None:
    artifact = store.put(data)

    assert (artifact.sha256, artifact.size) == (sha(data), len(data))
    assert store.exists(artifact.sha256)
    assert store.size(artifact.sha256) == len(data)
    assert b"".join(store.read(artifact.sha256)) == data
    assert list(store.artifacts()) == [artifact]
    assert staged_files(store) == []


async def test_chunks_begin_at_the_offset_and_are_no_larger_than_asked(store: stores.Store) -> None:
    data = bytes(range(256)) * 41
    artifact = store.put(data)

    pieces = [piece async for piece in store.chunks(artifact.sha256, offset=100, chunk=1000)]

    assert b"".join(pieces) == data[100:]
    assert max(map(len, pieces)) == 1000


async def test_a_piece_is_let_go_of_as_soon_as_it_is_given_away(store: stores.Store) -> None:
    artifact = store.put(bytes(3 * stores.CHUNK))
    async with contextlib.aclosing(store.chunks(artifact.sha256)) as pieces:
        tracemalloc.start()
        try:
            piece = await anext(pieces)
            assert tracemalloc.get_traced_memory()[0] > stores.CHUNK
            del piece
            # The thread that has read it may not have come to its end yet.
            await waiting.wait_until(
                lambda: tracemalloc.get_traced_memory()[0] < stores.CHUNK, description="nobody has it", seconds=10
            )
        finally:
            tracemalloc.stop()


def test_a_writer_sums_what_it_is_given_and_holes_as_zeros(store: stores.Store) -> None:
    writer = store.writer()
    writer.write(b"abc")
    writer.skip_to(3_000_000)
    writer.write(b"end")

    artifact = store.commit([writer])[0]

    whole = b"abc" + bytes(3_000_000 - 3) + b"end"
    assert artifact.sha256 == sha(whole)
    assert b"".join(store.read(artifact.sha256)) == whole
    assert store.path(artifact.sha256).stat().st_blocks * 512 < 1_000_000, "the hole takes no disk"


def test_a_writer_refuses_what_goes_beyond_its_limit_and_leaves_nothing(store: stores.Store) -> None:
    writer = store.writer(limit=10)
    writer.write(b"12345")
    with pytest.raises(writing.TooLarge):
        writer.write(b"678901")
    with pytest.raises(writing.TooLarge):
        writer.skip_to(11)
    writer.abort()

    assert staged_files(store) == []


def test_many_files_are_committed_at_once_and_the_same_content_twice_does_no_harm(store: stores.Store) -> None:
    writers = [store.writer() for _ in range(100)]
    for number, writer in enumerate(writers):
        writer.write(b"%d" % (number % 50))

    artifacts = store.commit(writers)

    assert len({artifact.sha256 for artifact in artifacts}) == 50
    assert all(store.exists(artifact.sha256) for artifact in artifacts)
    assert staged_files(store) == []


def test_an_upload_goes_on_where_it_stopped_over_a_restart(store: stores.Store, tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    first = store.upload(sha(data), len(data))
    first.write(0, data[:700_000])
    first.close()

    again = stores.Store(tmp_path / "artifacts")
    again.prepare()
    assert again.staged(sha(data)) == 700_000
    second = again.upload(sha(data), len(data))
    assert second.offset == 700_000
    second.write(650_000, data[650_000:])  # overlaps with what is there
    again.store_upload(second)

    assert b"".join(again.read(sha(data))) == data
    assert again.staged(sha(data)) == 0


def test_an_upload_with_other_content_is_thrown_away(store: stores.Store) -> None:
    upload = store.upload(sha(b"right"), 5)
    upload.write(0, b"wrong")
    with pytest.raises(writing.WrongContent):
        store.store_upload(upload)

    assert not store.exists(sha(b"right"))
    again = store.upload(sha(b"right"), 5)
    assert again.offset == 0
    again.close()


def test_an_upload_refuses_gaps_and_surplus(store: stores.Store) -> None:
    upload = store.upload(sha(b"12345"), 5)
    with pytest.raises(writing.WrongContent, match="missing"):
        upload.write(1, b"2")
    with pytest.raises(writing.TooLarge):
        upload.write(0, b"123456")
    upload.close()


def test_a_newer_upload_takes_the_place_of_an_older_one(store: stores.Store) -> None:
    older = store.upload(sha(b"12345"), 5)
    older.write(0, b"12")
    newer = store.upload(sha(b"12345"), 5)

    with pytest.raises(writing.TakenOver):
        older.write(2, b"xx")
    newer.write(2, b"345")
    store.store_upload(newer)

    assert b"".join(store.read(sha(b"12345"))) == b"12345"


def test_what_an_earlier_process_left_half_written_is_cleared(store: stores.Store, tmp_path: Path) -> None:
    left = store.writer()
    left.write(b"half")
    left._close_fd()
    assert staged_files(store)

    again = stores.Store(tmp_path / "artifacts")
    again.prepare()

    assert staged_files(again) == []


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_no_path_is_made_from_what_is_no_sum(store: stores.Store, name: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        store.path(name)


def test_removed_is_removed_and_missing_is_said(store: stores.Store) -> None:
    artifact = store.put(b"gone")
    assert store.remove(artifact.sha256)
    assert not store.remove(artifact.sha256)
    with pytest.raises(stores.NoSuchArtifact):
        store.size(artifact.sha256)
    with pytest.raises(stores.NoSuchArtifact):
        next(iter(store.read(artifact.sha256)))
