"""Environments of sandboxes in the cache: what somebody is in stays, what has been used since it was listed too."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hivemind_worker.runtime.sandbox import shelf
from hivemind_worker.worker.housekeeping import environments, policy


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache as the sandbox's environments leave it: two whole ones, one half made, the packages."""
    for key, last_used in (("aa", 1_000.0), ("bb", 2_000.0)):
        folder = tmp_path / "environments" / key
        (folder / "environment").mkdir(parents=True)
        (folder / "environment" / "content").write_bytes(b"x" * 1000)
        (folder / "about.json").write_text(json.dumps({"contents": ["six==1.16"], "bytes": 1000, "made": 1.0}))
        os.utime(folder / "about.json", (last_used, last_used))
    (tmp_path / "environments" / ".making-cc").mkdir()
    (tmp_path / "downloads" / "wheels").mkdir(parents=True)
    (tmp_path / "downloads" / "wheels" / "one").write_bytes(b"x" * 5000)
    return tmp_path


@pytest.fixture
def someone_in_bb(cache: Path) -> Iterator[None]:
    """As a sandbox that runs in it: holds the lock that `runtime/sandbox/environments.py` holds for it."""
    lock = os.open(cache / "environments" / "bb", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_SH)
    yield
    os.close(lock)


@pytest.mark.usefixtures("someone_in_bb")
async def test_what_lies_there_is_told_and_what_is_in_use_is_held(cache: Path) -> None:
    place = environments.Environments(cache)
    found = {Path(thing.name).name: thing for thing in await place.look()}
    assert sorted(found) == ["aa", "bb", "downloads"]
    assert (found["aa"].kind, found["aa"].size_bytes, found["aa"].last_used) == (policy.Kind.ENVIRONMENT, 1000, 1000.0)
    assert {name: bool(thing.held) for name, thing in found.items()} == {"aa": False, "bb": True, "downloads": False}
    assert found["downloads"].size_bytes >= 5000
    assert not await place.remove(found["bb"])
    assert await place.remove(found["aa"])
    assert await place.remove(found["downloads"])
    assert sorted(path.name for path in cache.iterdir()) == ["environments"]  # noqa: ASYNC240  (a test may block)
    assert [path.name for path in (cache / "environments").glob("[!.]*")] == ["bb"]


async def test_what_was_used_since_it_was_listed_stays(cache: Path) -> None:
    place = environments.Environments(cache)
    found = {Path(thing.name).name: thing for thing in await place.look()}
    os.utime(cache / "environments" / "aa" / "about.json")
    assert not await place.remove(found["aa"])
    assert (cache / "environments" / "aa" / "environment" / "content").exists()


def test_packages_stay_while_an_environment_is_made(cache: Path) -> None:
    lock = os.open(cache / "environments" / ".making-cc", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        assert not shelf.Shelf(cache).remove_downloads()
    finally:
        os.close(lock)
    assert shelf.Shelf(cache).remove_downloads()


def test_foreign_files_in_the_cache_are_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "environments" / "theirs").mkdir(parents=True)
    (tmp_path / "environments" / "theirs" / "about.json").write_text("[]")
    assert shelf.Shelf(tmp_path).environments() == []
    assert not shelf.Shelf(tmp_path).remove_downloads()
