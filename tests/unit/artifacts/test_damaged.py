"""Files that rot on the disk: seen when they are read, set aside, and taken again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hivemind_worker.artifacts import store as stores

DATA = bytes(range(256)) * 9_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[stores.Store]:
    made = stores.Store(tmp_path / "artifacts")
    made.prepare()
    yield made
    made.close()


def harm(path: Path, how: str) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        if how == "rot":
            file.seek(1_500_000)
            file.write(b"\xff")
        elif how == "cut":
            file.truncate(1_000_000)
        elif how == "grown":
            file.seek(0, os.SEEK_END)
            file.write(b"more")
        else:
            file.truncate(0)


@pytest.mark.parametrize("how", ["rot", "cut", "grown", "emptied"])
@pytest.mark.parametrize("offset", [0, 10, 2_000_000])
def test_damage_is_found_by_whoever_reads_to_the_end(store: stores.Store, how: str, offset: int) -> None:
    artifact = store.put(DATA)
    harm(store.path(artifact.sha256), how)
    with pytest.raises(stores.DamagedArtifact, match="upload it again"):
        list(store.read(artifact.sha256, offset))
    assert not store.exists(artifact.sha256)
    assert len(list(store.damaged())) == 1, "it is set aside, not deleted"
    with pytest.raises(stores.NoSuchArtifact):
        store.size(artifact.sha256)

    upload = store.upload(artifact.sha256, artifact.size)
    upload.write(0, DATA)
    store.store_upload(upload)
    assert b"".join(store.read(artifact.sha256, offset)) == DATA[offset:]


async def test_the_same_on_an_event_loop(store: stores.Store) -> None:
    artifact = store.put(DATA)
    harm(store.path(artifact.sha256), "rot")
    with pytest.raises(stores.DamagedArtifact):
        async for _ in store.chunks(artifact.sha256):
            pass
    assert not store.exists(artifact.sha256)


def test_verify_tells_sound_from_damaged(store: stores.Store) -> None:
    sound, rotten = store.put(DATA), store.put(DATA + b"x")
    harm(store.path(rotten.sha256), "rot")
    assert store.verify(sound.sha256)
    assert not store.verify(rotten.sha256)
    assert store.exists(sound.sha256)
    assert not store.exists(rotten.sha256)


def test_content_that_was_stored_again_meanwhile_is_not_set_aside(store: stores.Store) -> None:
    artifact = store.put(DATA)
    harm(store.path(artifact.sha256), "cut")
    reading = store.read(artifact.sha256)
    next(reading)
    store.put(DATA)  # somebody stores it anew while the old file is read
    with pytest.raises(stores.DamagedArtifact):
        list(reading)
    assert hashlib.sha256(store.path(artifact.sha256).read_bytes()).hexdigest() == artifact.sha256
