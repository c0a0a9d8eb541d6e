"""L06: an attempt handed out again, before and after its end and to the next process; a newer one, an older one."""

from __future__ import annotations

from pathlib import Path

import node_parts
import waiting
from scripted_pool import ScriptedPool, serving

from hivemind_worker.wire import calls
from hivemind_worker.worker.journal import reader

pb = calls.pb


def _task(command: str, attempt: int = 1) -> pb.Task:
    return pb.Task(id="t", type="command", command=command, attempt=attempt)


def _ends(pool: ScriptedPool) -> list[int]:
    return [report.attempt for report in pool.reports if report.status != "running"]


async def test_l06_it_runs_once_and_its_report_is_repeated(tmp_path: Path) -> None:
    pool = ScriptedPool()
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        await pool.give(_task("sleep 0.5; echo once"), _task("sleep 0.5; echo once"))
        await waiting.wait_until(lambda: _ends(pool) == [1], description="its report")
        await waiting.wait_until(lambda: not node.node.snapshot().attempts, description="its end is closed")
        await pool.give(_task("sleep 0.5; echo once"))
        await waiting.wait_until(lambda: _ends(pool)[:2] == [1, 1], description="the report again")
        assert node.runs.ran == [("t", 1)]


async def test_l06_the_next_process_reports_what_the_one_before_could_not_and_runs_nothing_again(
    tmp_path: Path,
) -> None:
    pool = ScriptedPool()
    async with serving(pool) as address:
        port = int(address.rpartition(":")[2])
        first = node_parts.running(address, tmp_path)
        node = await first.__aenter__()
        await pool.give(_task("sleep 0.5; echo once; echo kept > results/x"))
        await waiting.wait_until(lambda: node.runs.running == 1, description="it runs")
    journal = tmp_path / "worker.journal"
    await waiting.wait_until(
        lambda: any(held.ended for held in reader.read(journal).holdings.attempts.values()), description="it ended"
    )
    await first.__aexit__(None, None, None)  # at once: nothing is waited for
    async with serving(pool, port), node_parts.running(address, tmp_path) as second:
        await pool.give(_task("sleep 0.5; echo once; echo kept > results/x"))
        await waiting.wait_until(lambda: 1 in _ends(pool), description="its report", seconds=20)
        await waiting.wait_until(lambda: not second.node.snapshot().attempts, description="nothing is held")
        assert second.runs.ran == []
    assert [ref.task_id for ref in pool.registered[-1].held] == ["t"]
    result = pool.ends()["t"].result
    assert (result.logs, [file.name for file in result.files]) == ("once\n", ["x"])
    assert bytes(pool.stored[result.files[0].sha256]) == b"kept\n"


async def test_l06_a_newer_attempt_fences_the_older_and_an_older_is_not_begun(tmp_path: Path) -> None:
    pool = ScriptedPool()
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        await pool.give(_task("sleep 60", 2))
        await waiting.wait_until(lambda: node.runs.running == 1, description="the older runs")
        await pool.give(_task("sleep 60", 1), _task("echo new", 3))
        await waiting.wait_until(lambda: _ends(pool) == [3], description="the report of the newer")
        await waiting.wait_until(lambda: not node.node.snapshot().attempts, description="both are gone")
        assert node.runs.ran == [("t", 2), ("t", 3)]
