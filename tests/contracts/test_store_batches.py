"""Large submissions, in slices: all or none through any crash, nothing seen too early, others served meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from hivemind_worker import errors
from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import records, sqlite, staging, writing
from hivemind_worker.tasks import outcome, resources, state

SHAPE = assignment.Shape("command", resources.Resources(1))
COUNT = 3 * staging.SLICE_TASKS + 7


def tasks(count: int = COUNT, prefix: str = "t", digest: str = "d") -> list[records.NewTask]:
    return [records.NewTask(f"{prefix}{n}", b"body", digest, SHAPE, labels={"run": prefix}) for n in range(count)]


@pytest_asyncio.fixture
async def kept(tmp_path: Path) -> AsyncIterator[sqlite.SqliteStore]:
    opened = sqlite.SqliteStore(tmp_path / "pool.sqlite")
    await opened.open()
    yield opened
    await opened.close()


async def listed(kept: sqlite.SqliteStore) -> list[str]:
    return [task.id for task in await kept.find(records.Filter(most=10_000))]


async def rows(kept: sqlite.SqliteStore) -> dict[str, int]:
    """How much there is in each table that a submission writes to."""
    tables = ("tasks", "bodies", "events", "task_labels", "batches", "batch_slices", "submissions")

    def count(on: writing.Transaction) -> dict[str, int]:
        return {table: on.sql.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}

    return await kept._write.do(count)


async def test_others_write_between_the_slices_of_a_large_submission(kept: sqlite.SqliteStore) -> None:
    sizes: list[int] = []
    statements: list[str] = []

    def note(statement: str) -> None:
        if statement.startswith("INSERT INTO tasks"):
            statements.append(statement)
        elif statement == "COMMIT":
            sizes.append(len(statements))
            statements.clear()

    await kept._write.do(lambda on: on.sql.set_trace_callback(note))
    submitting = asyncio.create_task(kept.submit(tasks(), "key", "digest"))
    between = 0
    while not submitting.done():
        await kept._write.do(lambda on: on.sql.execute("SELECT 1").fetchone())
        between += 1
    await kept._write.do(lambda on: on.sql.set_trace_callback(None))
    assert sum(sizes) == COUNT
    assert max(sizes) <= staging.SLICE_TASKS
    assert between >= 3
    assert await submitting == tuple(task.id for task in tasks())
    assert sorted(await listed(kept)) == sorted(task.id for task in tasks())
    assert await kept.submit(tasks(), "key", "digest") == await submitting
    assert (await rows(kept))["tasks"] == COUNT
    with pytest.raises(errors.Conflict):
        await kept.submit(tasks(), "key", "another")


async def test_a_conflict_in_the_last_slice_leaves_nothing(kept: sqlite.SqliteStore) -> None:
    taken = records.NewTask("taken", b"", "another", SHAPE)
    await kept.submit([taken])
    before = await rows(kept)
    with pytest.raises(errors.Conflict):
        await kept.submit([*tasks(), records.NewTask("taken", b"", "d", SHAPE)], "key", "digest")
    await kept._submitting.close()
    assert await rows(kept) == before
    assert await listed(kept) == ["taken"]
    kept._submitting._closing = False
    assert len(await kept.submit(tasks(), "key", "digest")) == COUNT


async def test_repeats_of_a_large_submission_with_ids_change_nothing(kept: sqlite.SqliteStore) -> None:
    ids = await kept.submit(tasks())
    before = await rows(kept)
    assert await kept.submit(tasks()) == ids
    # Whole slices of tasks that are there, and new ones after, between and before them.
    more = [*tasks(staging.SLICE_TASKS, "u"), *tasks(), *tasks(2, "v"), *tasks(), *tasks(3, "w")]
    assert await kept.submit(more) == tuple(task.id for task in more)
    after = await rows(kept)
    assert (after["tasks"], after["batches"]) == (before["tasks"] + staging.SLICE_TASKS + 5, 0)
    # One id for all of them.
    assert await kept.submit(tasks(1, "x") * COUNT) == ("x0",) * COUNT
    assert (await kept.find(records.Filter(labels={"run": "x"})))[0].state is state.TaskState.QUEUED


async def test_ids_twice_in_one_batch_and_from_before_are_the_same_tasks(kept: sqlite.SqliteStore) -> None:
    await kept.submit(tasks(1))
    ids = await kept.submit([*tasks(), *tasks(2)])
    assert ids == tuple(task.id for task in [*tasks(), *tasks(2)])
    assert len(await listed(kept)) == COUNT


async def test_what_is_staged_is_not_there_for_anybody(kept: sqlite.SqliteStore) -> None:
    def begin(on: writing.Transaction) -> int:
        _, batch = staging.begin(on, "", "")
        staging.stage(on, batch, tasks(3))
        return batch

    batch = await kept._write.do(begin)
    session = (await kept.register(records.NewNode("n", resources.Resources(9), "boot"), [])).session_id
    assert await listed(kept) == []
    assert set((await kept.counts()).values()) == {0}
    assert await kept.oldest_queued() == 0
    for look in (kept.tasks, kept.cancel, kept.retry):
        with pytest.raises(errors.NoSuchTask):
            await look(["t0"])
    report = records.Report("t0", "n", session, 1, outcome.Status.COMPLETED)
    assert (await kept.report(report)).verdict is records.Verdict.UNKNOWN
    assert await kept.hand_out([records.Poll("n", session, resources.Resources(9), most=9)]) == [records.Given()]
    with pytest.raises(errors.Unavailable):  # it may vanish: neither this task nor another can be promised
        await kept.submit(tasks(1))
    while await kept._write.do(lambda on: staging.discard(on, batch)):
        pass
    assert set((await rows(kept)).values()) == {0}


STEPS: list[Callable[[writing.Transaction, int], object]] = [
    lambda on, batch: staging.stage(on, batch, tasks(5, "a")),
    lambda on, batch: staging.stage(on, batch, tasks(5, "b")),
    lambda on, batch: staging.publish(on, batch, ["a0"], "key", "digest"),
    staging.enqueue,
    staging.enqueue,
]


@pytest.mark.parametrize("steps", range(len(STEPS) + 1))
async def test_a_crash_after_any_step_leaves_all_or_none(tmp_path: Path, steps: int) -> None:
    path = tmp_path / "pool.sqlite"
    first = sqlite.SqliteStore(path)
    await first.open()
    batch = (await first._write.do(lambda on: staging.begin(on, "key", "digest")))[1]
    for step in STEPS[:steps]:
        await first._write.do(lambda on, step=step: step(on, batch))  # type: ignore[misc]
    await first.close()
    second = sqlite.SqliteStore(path)
    await second.open()
    expected = 10 if steps >= 3 else 0
    assert len(await listed(second)) == expected
    assert (await second.counts())[str(state.TaskState.QUEUED)] == expected
    found = await rows(second)
    assert (found["tasks"], found["bodies"], found["events"], found["task_labels"]) == (expected,) * 4
    assert (found["batches"], found["batch_slices"]) == (0, 0)
    assert found["submissions"] == (1 if steps >= 3 else 0)
    session = (await second.register(records.NewNode("n", resources.Resources(99), "boot"), [])).session_id
    (given,) = await second.hand_out([records.Poll("n", session, resources.Resources(99), most=64)])
    assert len(given.tasks) == expected
    await second.close()


async def test_a_submitter_that_goes_away_leaves_all_of_it(kept: sqlite.SqliteStore) -> None:
    submitting = asyncio.create_task(kept.submit(tasks(), "key", "digest"))
    await asyncio.sleep(0)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    assert len(await kept.submit(tasks(), "key", "digest")) == COUNT
    assert len(await listed(kept)) == COUNT


async def test_a_disk_that_is_full_for_a_while_after_the_publication_costs_nothing(
    kept: sqlite.SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PAUSE_SECONDS", 0.01)
    failures, queueing = iter(range(3)), [False]

    def note(statement: str) -> None:
        queueing[0] = statement.startswith("UPDATE tasks SET state = 'queued'")

    def interrupt() -> bool:
        return queueing[0] and next(failures, None) is not None

    def fail(on: writing.Transaction) -> None:
        on.sql.set_trace_callback(note)
        on.sql.set_progress_handler(interrupt, 1)

    await kept._write.do(fail)
    assert len(await kept.submit(tasks())) == COUNT
    assert len(await listed(kept)) == COUNT
    assert next(failures, None) is None


async def test_a_large_retry_and_a_large_cancellation_come_in_slices_too(kept: sqlite.SqliteStore) -> None:
    ids = await kept.submit(tasks())
    for task in await kept.cancel(ids):
        assert task.state is state.TaskState.CANCELLED
    again = await kept.retry(ids, "key")
    assert await kept.retry(ids, "key") == again
    assert [task.retry_of for task in await kept.tasks(again)] == list(ids)
    with pytest.raises(errors.Conflict):
        await kept.retry([*ids, again[0]])
    with pytest.raises(errors.NoSuchTask):
        await kept.cancel([*again, "nobody's"])
    assert (await kept.counts())["queued"] == COUNT
