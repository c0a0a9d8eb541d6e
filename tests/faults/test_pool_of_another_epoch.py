"""The pool's store was made new and an id is used again: nothing of the old store's attempts reaches the new one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import node_parts
import pool_parts
import pytest
import waiting
from scripted_pool import ScriptedPool, serving

from hivemind_worker.wire import calls
from hivemind_worker.worker.journal import reader

pb = calls.pb
ID = "report"
MONDAY, TUESDAY = "a" * 32, "b" * 32


def _has_ended(journal: Path) -> bool:
    return any(held.ended for held in reader.read(journal).holdings.attempts.values())


async def _ended(at: pool_parts.Running) -> pb.TaskInfo:
    async def look() -> bool:
        return (await at.info(ID)).state in {"completed", "failed", "cancelled"}

    callback: Callable[[], bool | Awaitable[bool]] = look
    await waiting.wait_until(callback, description="it has ended", seconds=30)
    return await at.info(ID)


async def test_a_wiped_pool_is_not_told_again_how_the_older_task_had_ended(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path / "monday") as at:
        address = at.pool.address
        first = node_parts.running(address, tmp_path / "node")
        await first.__aenter__()
        await at.submit(pb.Task(id=ID, command="echo monday"))
        assert (await _ended(at)).result.logs == "monday\n"
    try:
        async with pool_parts.running(tmp_path / "tuesday", listen=address) as at:
            await at.submit(pb.Task(id=ID, command="echo tuesday"))
            assert (await _ended(at)).result.logs == "tuesday\n"
    finally:
        await first.__aexit__(None, None, None)


@pytest.mark.parametrize("worker_restarts", [False, True], ids=["same-worker", "worker-restarted-between"])
async def test_a_wiped_pool_is_not_given_the_result_of_the_older_task(tmp_path: Path, *, worker_restarts: bool) -> None:
    folder = tmp_path / "node"
    async with pool_parts.running(tmp_path / "monday") as at:
        address = at.pool.address
        first = node_parts.running(address, folder)
        node = await first.__aenter__()
        await at.submit(pb.Task(id=ID, command="sleep 0.5; echo monday; echo monday > results/day"))
        await waiting.wait_until(lambda: node.runs.running == 1, description="monday's runs", seconds=20)
    await waiting.wait_until(lambda: _has_ended(folder / "worker.journal"), description="it ended", seconds=20)
    if worker_restarts:
        await first.__aexit__(None, None, None)
        first = node_parts.running(address, folder)
    try:
        async with pool_parts.running(tmp_path / "tuesday", listen=address) as at:
            await at.submit(pb.Task(id=ID, command="echo tuesday"))
            if worker_restarts:
                node = await first.__aenter__()
            info = await _ended(at)
            assert (info.state, info.result.logs, len(info.result.files)) == ("completed", "tuesday\n", 0)
            await waiting.wait_until(lambda: not node.node.snapshot().attempts, description="nothing is held")
            await waiting.wait_until(
                lambda: not reader.read(folder / "worker.journal").holdings.attempts, description="all is closed"
            )
    finally:
        await first.__aexit__(None, None, None)


async def test_what_runs_ends_unreported_when_its_epoch_is_over(tmp_path: Path) -> None:
    pool = ScriptedPool()
    pool.register_answer.store_epoch = MONDAY
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        await pool.give(pb.Task(id=ID, attempt=1, type="command", command="sleep 60", store_epoch=MONDAY))
        await waiting.wait_until(lambda: node.runs.running == 1, description="it runs")
        await waiting.wait_until(
            lambda: any(ref.run_id and ref.store_epoch == MONDAY for beat in pool.beats for ref in beat.held),
            description="it is listed with epoch and run",
        )
        pool.register_answer.store_epoch = TUESDAY
        pool.forget()
        await waiting.wait_until(lambda: not node.node.snapshot().attempts, description="it is dropped")
        await pool.give(pb.Task(id=ID, attempt=1, type="command", command="echo new", store_epoch=TUESDAY))
        await waiting.wait_until(lambda: bool(pool.ends()), description="the new one is reported")
        report = pool.ends()[ID]
        assert (report.store_epoch, report.result.logs) == (TUESDAY, "new\n")
        assert all(report.store_epoch == TUESDAY for report in pool.reports if report.status != "running")


async def test_a_task_of_another_epoch_than_the_sessions_is_not_taken(tmp_path: Path) -> None:
    pool = ScriptedPool()
    pool.register_answer.store_epoch = TUESDAY
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        late = pb.Task(id="late", attempt=1, type="command", command="echo late", store_epoch=MONDAY)
        await pool.give(late, pb.Task(id=ID, attempt=1, type="command", command="echo new", store_epoch=TUESDAY))
        await waiting.wait_until(lambda: bool(pool.ends()), description="the new one is reported")
        assert {name for name, _ in node.runs.ran} == {ID}


async def test_a_run_has_one_id_in_all_that_is_told_of_it(tmp_path: Path) -> None:
    pool = ScriptedPool()
    pool.register_answer.store_epoch = MONDAY
    async with serving(pool) as address, node_parts.running(address, tmp_path):
        await pool.give(pb.Task(id=ID, attempt=1, type="command", command="echo one; sleep 0.5", store_epoch=MONDAY))
        await waiting.wait_until(lambda: bool(pool.ends()), description="it is reported")
    run_ids = {report.run_id for report in pool.reports} | {run for epoch, run in pool.appends if run}
    run_ids |= {ref.run_id for beat in pool.beats for ref in beat.held if ref.run_id}
    assert len(run_ids) == 1
    assert all(len(run_id) == 32 for run_id in run_ids)
    assert {epoch for epoch, _ in pool.appends} == {MONDAY}
