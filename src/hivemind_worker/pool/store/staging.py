"""Large submissions in slices: staged where nobody sees them, published by one small commit, then queued in slices.

A slice holds the writer for milliseconds, so others are served between two of them. All or none stays true: a batch
that is not published is removed, also by the next open; one that is published is queued to its end, also by the next
open. A task that is staged has its id, and is in no queue, no listing and no count.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence

from hivemind_worker import errors
from hivemind_worker.pool.store import records, shapes, submissions, writing
from hivemind_worker.tasks import state

SLICE_TASKS = 200
"""Tasks in one transaction: about 15 ms on one core. A submission of no more is written at once."""

SLICE_BYTES = 2 * 1024**2
"""Bytes of tasks after which a slice ends, whatever their number."""


PAUSE_SECONDS = 1.0
"""Between two tries to finish a batch while the disk takes nothing."""


def end_of_slice(tasks: int, size: int, more: int) -> bool:
    """Whether a slice of so many tasks and bytes ends before a task of ``more`` bytes."""
    return tasks > 0 and (tasks == SLICE_TASKS or size + more > SLICE_BYTES)


async def slices(tasks: Sequence[records.NewTask]) -> AsyncIterator[Sequence[records.NewTask]]:
    """Part tasks into slices, in order."""
    start = size = 0
    for place, task in enumerate(tasks):
        if end_of_slice(place - start, size, len(task.body)):
            yield tasks[start:place]
            start, size = place, 0
        size += len(task.body)
    yield tasks[start:]


class Submitter:
    """Submits large batches, one at a time. What it has begun goes on when the caller is cancelled."""

    def __init__(self, writer: writing.Writer) -> None:
        self._writer = writer
        self._one = asyncio.Lock()
        self._jobs: set[asyncio.Task[object]] = set()
        self._closing = False

    async def submit(
        self, parts: AsyncIterator[Sequence[records.NewTask]], key: str, key_digest: str
    ) -> tuple[str, ...]:
        """See :meth:`store.Store.submit`. ``parts`` is read to its end, unless the key was used before."""
        job = asyncio.create_task(self._submit(parts, key, key_digest), name="pool/submit")
        self._keep(job)
        return await asyncio.shield(job)

    async def close(self) -> None:
        """Wait for what is under way."""
        self._closing = True
        while self._jobs:
            await asyncio.wait(self._jobs)

    def _keep(self, job: asyncio.Task[object] | asyncio.Task[tuple[str, ...]] | asyncio.Task[None]) -> None:
        self._jobs.add(job)
        job.add_done_callback(self._over)

    def _over(self, job: asyncio.Task[object]) -> None:
        self._jobs.discard(job)
        if not job.cancelled():
            job.exception()  # its caller has it, or has gone

    async def _submit(
        self, parts: AsyncIterator[Sequence[records.NewTask]], key: str, key_digest: str
    ) -> tuple[str, ...]:
        async with self._one:
            before, batch = await self._writer.do(lambda tx: begin(tx, key, key_digest))
            if before is not None:
                return before
            ids: list[str] = []
            try:
                async for part in parts:
                    ids += await self._stage(batch, part)
                await self._writer.do(lambda tx: publish(tx, batch, ids, key, key_digest))
            except BaseException:
                self._keep(asyncio.create_task(self._finish(batch, discard), name="pool/discard"))
                raise
            await self._finish(batch, enqueue)
            return tuple(ids)

    async def _stage(self, batch: int, part: Sequence[records.NewTask]) -> list[str]:
        return await self._writer.do(lambda tx: stage(tx, batch, part))

    async def _finish(self, batch: int, work: Callable[[writing.Transaction, int], bool]) -> None:
        """Do it for each slice of a batch, however long the disk is full. The next open does what is left."""
        more = True
        while more:
            try:
                more = await self._writer.do(lambda tx: work(tx, batch))
            except errors.Unavailable:
                if self._closing:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)


# ---- the steps, each a transaction or a part of one ----


def begin(tx: writing.Transaction, key: str, key_digest: str) -> tuple[tuple[str, ...] | None, int]:
    """Return the ids that the key stands for already, or the number of a new batch."""
    if (before := submissions.ids_of(tx, key, key_digest)) is not None:
        return before, 0
    last = tx.sql.execute("SELECT coalesce(max(number), 0) AS number FROM tasks").fetchone()["number"]
    batch = tx.sql.execute("INSERT INTO batches (after) VALUES (?)", (last,)).lastrowid
    assert batch is not None
    return None, batch


def stage(tx: writing.Transaction, batch: int, tasks: Sequence[records.NewTask]) -> list[str]:
    """Keep a slice where nobody sees it; return the ids. Raises as :meth:`store.Store.submit`."""
    after = tx.sql.execute("SELECT after FROM batches WHERE number = ?", (batch,)).fetchone()["after"]
    first = tx.sql.execute("SELECT coalesce(max(number), 0) + 1 AS number FROM tasks").fetchone()["number"]
    ids = [submissions.keep(tx, task, staged_after=after) for task in tasks]
    last = tx.sql.execute("SELECT coalesce(max(number), 0) AS number FROM tasks").fetchone()["number"]
    if last >= first:  # a slice of tasks that are all there already adds none
        tx.sql.execute("INSERT INTO batch_slices VALUES (?, ?, ?)", (batch, first, last))
    return ids


def publish(tx: writing.Transaction, batch: int, ids: Sequence[str], key: str, key_digest: str) -> None:
    """Make a batch one that will be queued to its end, and take note of its key."""
    tx.sql.execute("UPDATE batches SET published = 1 WHERE number = ?", (batch,))
    submissions.remember(tx, key, key_digest, ids)


def enqueue(tx: writing.Transaction, batch: int) -> bool:
    """Queue the next slice of a published batch; whether there are more."""
    *piece, more = _next_slice(tx, batch)
    rows = tx.sql.execute(
        "SELECT number, id, shape, priority FROM tasks WHERE number BETWEEN ? AND ? AND state = 'staged'", piece
    ).fetchall()
    tx.sql.execute("UPDATE tasks SET state = 'queued' WHERE number BETWEEN ? AND ? AND state = 'staged'", piece)
    for row in rows:
        tx.undo.append((tx.queue.distrust, row["shape"]))
        tx.queue.entered(row["shape"], shapes.shape(tx.sql, row["shape"]), (-row["priority"], row["number"]))
        tx.changes.append(records.Change(row["id"], state.TaskState.QUEUED, new=True))
    return more


def discard(tx: writing.Transaction, batch: int) -> bool:
    """Remove the next slice of a batch that was not published; whether there are more."""
    *piece, more = _next_slice(tx, batch)
    rows = tx.sql.execute(
        "SELECT number, labels FROM tasks WHERE number BETWEEN ? AND ? AND state = 'staged'", piece
    ).fetchall()
    for row in rows:
        number = (row["number"],)
        for label in json.loads(row["labels"]).items():
            tx.sql.execute("DELETE FROM task_labels WHERE key = ? AND value = ? AND number = ?", (*label, *number))
        tx.sql.execute("DELETE FROM bodies WHERE number = ?", number)
        tx.sql.execute("DELETE FROM sealed_secrets WHERE number = ?", number)
        tx.sql.execute("DELETE FROM events WHERE number = ?", number)
        tx.sql.execute("DELETE FROM tasks WHERE number = ?", number)
    return more


def _next_slice(tx: writing.Transaction, batch: int) -> tuple[int, int, bool]:
    """Take the first slice off a batch, which ends with its last; return it, and whether there are more."""
    rows = tx.sql.execute(
        "SELECT first, last FROM batch_slices WHERE batch = ? ORDER BY first LIMIT 2", (batch,)
    ).fetchall()
    if len(rows) < 2:
        tx.sql.execute("DELETE FROM batch_slices WHERE batch = ?", (batch,))
        tx.sql.execute("DELETE FROM batches WHERE number = ?", (batch,))
    if not rows:
        return 0, -1, False
    tx.sql.execute("DELETE FROM batch_slices WHERE batch = ? AND first = ?", (batch, rows[0]["first"]))
    return rows[0]["first"], rows[0]["last"], len(rows) > 1


def recover(tx: writing.Transaction) -> None:
    """Finish what an earlier process of this store left: queue what was published, remove what was not."""
    for row in tx.sql.execute("SELECT number, published FROM batches").fetchall():
        work = enqueue if row["published"] else discard
        while work(tx, row["number"]):
            pass
