"""Output that is sent page by page is in memory a page at a time."""

from __future__ import annotations

import contextlib
import tracemalloc
from pathlib import Path

import store_parts
import waiting

from hivemind_worker.pool.api import attempt_logs, following, streams
from hivemind_worker.pool.store import sqlite


async def test_a_page_is_let_go_of_as_soon_as_it_is_given_away(tmp_path: Path) -> None:
    kept, logs = sqlite.SqliteStore(tmp_path / "pool.sqlite"), attempt_logs.AttemptLogs(tmp_path / "logs")
    await kept.open()
    try:
        await kept.submit([store_parts.task("t")])
        session = await store_parts.session(kept)
        handed = await store_parts.take(kept, "n", session)
        assigned = await kept.assignment("t", handed.attempt)
        assert assigned is not None
        key = following.key_of("t", handed.attempt, assigned)
        size = following.PAGE_BYTES // 4
        for number in range(12):
            logs.append(key, [attempt_logs.Chunk(number, 1, number * size, bytes(size))])
        with following.Reports(kept, streams.Streams(), "peer") as reports:
            output = following.output(reports, logs, following.Wanted("t", 0, 0), None)
            async with contextlib.aclosing(output) as pages:
                tracemalloc.start()
                try:
                    page = await anext(pages)
                    assert len(page.chunks) > 1
                    del page
                    # The thread that has read it may not have come to its end yet.
                    await waiting.wait_until(
                        lambda: tracemalloc.get_traced_memory()[0] < size, description="nobody has it", seconds=10
                    )
                finally:
                    tracemalloc.stop()
    finally:
        await kept.close()
        logs.close()
