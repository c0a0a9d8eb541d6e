"""The slow reader of all stored files: it finds what has rotted, keeps to its rate, and stops when asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import waiting

from hivemind_worker.artifacts import scrub
from hivemind_worker.artifacts import store as stores
from hivemind_worker.concurrency import stopping


@pytest.fixture
def store(tmp_path: Path) -> Iterator[stores.Store]:
    made = stores.Store(tmp_path / "artifacts")
    made.prepare()
    yield made
    made.close()


def rot(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"R" + path.read_bytes()[1:])


async def test_it_finds_each_damaged_file_and_no_other(store: stores.Store) -> None:
    artifacts = [store.put(b"content %d" % number) for number in range(40)]
    for artifact in artifacts[::10]:
        rot(store.path(artifact.sha256))
    stop = stopping.Stop()
    loop = scrub.Scrub(store, 1024**3, min_round_seconds=0.01)
    running = asyncio.create_task(loop.run(stop))
    await waiting.wait_until(lambda: loop.rounds >= 1, description="a round is over")
    rot(store.path(artifacts[1].sha256))
    await waiting.wait_until(lambda: store.damaged_count == 5, description="the next round finds what came later")
    stop.request(stopping.StopLevel.DRAIN, "the test is over")
    await running
    there = [artifact for artifact in artifacts if store.exists(artifact.sha256)]
    assert there == [artifact for number, artifact in enumerate(artifacts) if number % 10 and number != 1]


async def test_it_reads_no_faster_than_its_rate_and_stops_in_the_middle_of_a_file(store: stores.Store) -> None:
    store.put(bytes(8 * 1024**2))
    stop = stopping.Stop()
    loop = scrub.Scrub(store, 4 * 1024**2)
    began = time.monotonic()
    running = asyncio.create_task(loop.run(stop))
    await waiting.wait_until(lambda: loop.read_bytes >= 3 * 1024**2, description="three of eight MiB are read")
    assert time.monotonic() - began >= 0.5, "2 MiB before the third take half a second"
    stop.request(stopping.StopLevel.DRAIN, "the test is over")
    await running
    assert loop.read_bytes < 8 * 1024**2


async def test_without_a_rate_it_only_waits(store: stores.Store) -> None:
    store.put(b"content")
    stop = stopping.Stop()
    stop.request(stopping.StopLevel.DRAIN, "at once")
    loop = scrub.Scrub(store, 0)
    await loop.run(stop)
    assert loop.read_bytes == 0
