"""Leases over gRPC, with peers that lag: what a node is given back is watched, whichever call gives it back."""

from __future__ import annotations

from pathlib import Path

import pool_parts
import waiting

from hivemind_worker.wire import calls

pb = calls.pb


async def test_a_start_that_comes_after_the_lease_strands_no_task(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path, lease_seconds=0.5) as at:
        silent, other = await at.worker("silent"), await at.worker("other")
        (task_id,) = await at.submit()
        task = await silent.take()

        async def queued() -> pb.TaskInfo | None:
            await other.beat()
            info = await at.info(task_id)
            return info if info.state == "queued" else None

        lost: pb.TaskInfo | None = await waiting.wait_until(queued, description="the lease runs out")
        assert lost is not None
        # Delayed on its way: the process that sent it says nothing more.
        assert (await silent.report(task, "running")).verdict == pb.VERDICT_ACCEPTED
        assert (await at.info(task_id)).state == "running"

        async def given_to_other() -> pb.Task | None:
            return next(iter((await other.poll(0.2)).tasks), None)

        new: pb.Task | None = await waiting.wait_until(given_to_other, description="the task goes to the other")
        assert new is not None
        assert (new.id, new.attempt) == (task_id, 2)
        assert (await other.report(new)).verdict == pb.VERDICT_ACCEPTED
