from __future__ import annotations

from pathlib import Path

import pytest

from hivemind_worker.artifacts import store
from hivemind_worker.node import keeping


@pytest.fixture
def files(tmp_path: Path) -> store.Store:
    made = store.Store(tmp_path)
    made.prepare()
    return made


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
