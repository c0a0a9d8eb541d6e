"""A half-written result that a killed worker left goes with its attempt, also where nobody can go on with it."""

from __future__ import annotations

from pathlib import Path

import node_parts
import waiting

from hivemind_worker.artifacts import outbox, store
from hivemind_worker.filesystem import sealed
from hivemind_worker.runtime import checkpoint, results
from hivemind_worker.tasks import attempt_id
from hivemind_worker.wire import calls
from hivemind_worker.worker.attempts import safekeeping
from hivemind_worker.worker.journal import writer


async def _killed_amid_a_result(folder: Path) -> Path:
    """What a worker leaves that was killed as the first bytes of a result file had come; returns that file."""
    files = store.Store(folder)
    files.prepare()
    half = files.writer(limit=10)
    half.write(b"half")
    half.promised = True
    half.close()
    books = safekeeping.Books(
        writer.Journal(folder / "worker.journal"), outbox.Outbox(folder / "outbox"), sealed.Key(folder / "key")
    )
    await books.journal.open()
    books.outbox.prepare(set())
    run = attempt_id.RunKey(attempt_id.AttemptId("task", 1), attempt_id.new_run_id())
    record = safekeeping.Safekeeping(books, run)
    record.accept(calls.pb.Task(id="task", attempt=1, type="command", command="true"))
    await record.placed({"sandbox": "of-the-dead"})
    progress = results.Progress(half=results.Half(b"large", 0o644, 10, half.path.name, half.size))
    await record.save(checkpoint.Checkpoint(results=progress))
    await books.journal.close()
    return half.path


async def test_a_half_written_result_goes_with_the_attempt_that_does_not_come_to_it(tmp_path: Path) -> None:
    left = await _killed_amid_a_result(tmp_path)
    assert left.exists()
    async with node_parts.running("127.0.0.1:1", tmp_path):
        await waiting.wait_until(lambda: not left.exists(), description="the half result is gone", seconds=20)
