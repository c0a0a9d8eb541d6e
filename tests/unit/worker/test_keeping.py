from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from hivemind_worker.artifacts import store
from hivemind_worker.runtime import results
from hivemind_worker.runtime.capsule import messages
from hivemind_worker.tasks import plan
from hivemind_worker.worker.attempts import keeping


@pytest.fixture
def files(tmp_path: Path) -> Iterator[store.Store]:
    made = store.Store(tmp_path)
    made.prepare()
    yield made
    made.close()


def test_an_artifact_goes_when_the_last_who_needs_it_is_done(files: store.Store) -> None:
    keeps = keeping.Keeping(files)
    one = files.put(b"same")
    keeps.need([one])
    keeps.need([one])
    keeps.done([one])
    assert files.exists(one.sha256)
    keeps.done([one])
    assert not files.exists(one.sha256)


def test_content_stored_again_meanwhile_by_another_task_stays(files: store.Store) -> None:
    keeps = keeping.Keeping(files)
    first = files.put(b"same")
    keeps.need([first])
    again = files.put(b"same")
    keeps.done([first])
    assert files.exists(again.sha256)
    keeps.need([again])
    keeps.done([again])
    assert not files.exists(again.sha256)


def test_content_that_a_running_task_has_stored_already_waits_for_its_end(files: store.Store) -> None:
    # It once went with the first who was done; the other's report then failed for ever.
    keeps = keeping.Keeping(files)
    keeps.begin("other")
    files.put(b"same")
    mine = files.put(b"same")
    keeps.need([mine])
    keeps.done([mine])
    assert files.exists(mine.sha256)
    keeps.need([mine])
    keeps.end("other")
    assert files.exists(mine.sha256)
    keeps.done([mine])
    assert not files.exists(mine.sha256)


def test_what_waited_for_running_tasks_goes_with_the_last_of_them(files: store.Store) -> None:
    keeps = keeping.Keeping(files)
    keeps.begin("one")
    keeps.begin("two")
    mine = files.put(b"same")
    keeps.need([mine])
    keeps.done([mine])
    keeps.end("one")
    keeps.begin("three")
    assert files.exists(mine.sha256)
    keeps.end("two")
    assert not files.exists(mine.sha256)


def test_an_input_is_needed_before_it_is_there(files: store.Store) -> None:
    keeps = keeping.Keeping(files)
    late = files.put(b"late")
    files.remove(late.sha256)
    keeps.need([late])
    files.put(b"late")
    keeps.arrived(late)
    keeps.done([late])
    assert not files.exists(late.sha256)


def empty_files(number: int) -> list[messages.ResultBegin | messages.ResultEnd]:
    """Result files without content: all of them are one artifact, stored again with every batch."""
    begins = [messages.ResultBegin(b"f%d" % each, 0o644, 0) for each in range(number)]
    return [message for begin in begins for message in (begin, messages.ResultEnd())]


def receiver(files: store.Store, keeps: keeping.Keeping, who: str, after: results.Progress) -> results.Receiver:
    caps = plan.Caps(1, 1, results_bytes=10_000, results_count=5_000, results_depth=4, results_seconds=1.0)
    return results.Receiver(files, caps, after, functools.partial(keeps.stored, who))


@pytest.mark.parametrize("taken_up", [False, True])
async def test_results_that_no_end_names_go_with_their_attempt(files: store.Store, taken_up: bool) -> None:
    # A worker was killed while it collected; the next took the attempt up, and it was cancelled: a file stayed.
    keeps = keeping.Keeping(files)
    after = results.Progress()
    if taken_up:
        before = receiver(files, keeping.Keeping(files), "killed", after)
        for message in empty_files(100):
            await before.take(message)
        after = await before.progress()
        await before.abort()
    keeps.begin("one")
    keeps.stored("one", {file.artifact for file in after.files})
    keeps.begin("other")
    cancelled = receiver(files, keeps, "one", after)
    other = receiver(files, keeps, "other", results.Progress())
    for message in empty_files(700):
        await cancelled.take(message)
    await other.take(messages.ResultBegin(b"same", 0o644, 0))
    await other.take(messages.ResultEnd())
    await cancelled.abort()
    keeps.end("one")
    named = {file.artifact for file in (await other.finish()).files}
    keeps.need(named)
    keeps.end("other")
    assert list(files.artifacts()) == list(named)
    keeps.done(named)
    assert list(files.artifacts()) == []


async def test_what_was_stored_as_the_attempt_was_given_up_goes_too(files: store.Store) -> None:
    keeps = keeping.Keeping(files)
    keeps.begin("one")
    cancelled = receiver(files, keeps, "one", results.Progress())
    for message in empty_files(10):
        await cancelled.take(message)
    await cancelled._write_waiting()
    await cancelled._settled()
    finishing = asyncio.create_task(cancelled.finish())
    for _ in range(3):
        await asyncio.sleep(0)
    assert cancelled._turn is not None  # a thread stores what came
    finishing.cancel()
    await asyncio.wait({finishing})
    await cancelled.abort()
    keeps.end("one")
    assert list(files.artifacts()) == []
    assert list((files.path("00" * 32).parents[2] / "staging").iterdir()) == []


def test_a_file_that_cannot_be_looked_at_harms_nobody(files: store.Store) -> None:
    keeps = keeping.Keeping(files)
    one = files.put(b"content")
    keeps.need([one])
    path = files.path(one.sha256)
    path.unlink()
    path.symlink_to(path)  # ELOOP, as any other error of a disk
    keeps.done([one])
    keeps.arrived(one)
