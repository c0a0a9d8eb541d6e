"""A state folder copied while its worker lives: the copy is refused and touches nothing, the original works on."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import mortal
import node_parts
import pool_parts
import pytest
import waiting
from scripted_pool import ScriptedPool, serving

from hivemind_worker import errors
from hivemind_worker.cli import holding
from hivemind_worker.pool.scheduling import challenge
from hivemind_worker.tasks import outcome
from hivemind_worker.wire import calls, translate
from hivemind_worker.worker.attempts import recovery
from hivemind_worker.worker.journal import records, writer

pb = calls.pb


def test_a_copy_of_a_state_folder_has_another_lock_and_knows_that_it_is_one(tmp_path: Path) -> None:
    with holding.folder(tmp_path / "one") as first:
        first_id = first.id
        assert (first.is_copy, len(first_id)) == (False, 64)
        subprocess.run(["cp", "-a", tmp_path / "one", tmp_path / "two"], check=True)
        with holding.folder(tmp_path / "two") as copy:
            assert copy.is_copy
            assert copy.id != first_id
            copy.take_over()
    with holding.folder(tmp_path / "one") as again, holding.folder(tmp_path / "two") as other:
        assert (again.id, again.is_copy, other.is_copy) == (first_id, False, False)


async def _leave_an_end(folder: Path, sha256: str) -> None:
    """A journal as of a process that had one result to deliver."""
    journal = writer.Journal(folder / "worker.journal")
    await journal.open()
    task = pb.Task(id="t", attempt=1, type="command", command="true").SerializeToString()
    ended = outcome.Outcome(outcome.Status.COMPLETED, results=(outcome.ResultFile("x", outcome.Artifact(sha256, 1)),))
    result = translate.outcome_to_message(ended).SerializeToString()
    await journal.append(records.Accepted("t", 1, task, "", "r" * 32))
    await journal.append(records.Started("t", 1, {}, "", "r" * 32))
    await journal.append(records.Ended("t", 1, result, "", "r" * 32))
    await journal.close()


async def test_a_copy_touches_nothing_before_the_pool_has_taken_it(tmp_path: Path) -> None:
    with holding.folder(tmp_path / "one"):
        await _leave_an_end(tmp_path / "one", "a" * 64)
        await asyncio.to_thread(shutil.copytree, tmp_path / "one", tmp_path / "two")
    pool = ScriptedPool()
    pool.fail["RegisterNode"] = [errors.Unavailable("not yet"), errors.StateInUse("it lives")]
    with holding.folder(tmp_path / "two") as lock:
        assert lock.is_copy
        async with serving(pool) as address:
            node = node_parts.Node(address, tmp_path / "two", lock=lock)
            with pytest.raises(errors.StateInUse, match=r"--node-id.*--state-dir"):
                await node.node.run(node.stop)
            assert not node.runs.opened
            # Its original has ended meanwhile: now it is this node, and goes on with what it holds.
            async with node_parts.running(address, tmp_path / "two", lock=lock) as second:
                await waiting.wait_until(lambda: second.runs.opened, description="it works")
        first = pool.registered[0]
        assert [(ref.task_id, ref.run_id) for ref in first.held] == [("t", "r" * 32)]
        assert first.state_lock_id == lock.id
        assert not lock.is_copy


async def test_what_its_original_had_accepted_when_it_was_copied_may_have_begun_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original began it, behind the copy's back, and was killed."""
    monkeypatch.setattr(challenge, "CHALLENGE_SECONDS", 0.5)
    async with pool_parts.running(tmp_path / "pool", lease_seconds=30.0, max_attempts=1) as at:
        original = await at.worker("node-1", "before")
        (task_id,) = await at.submit(pb.Task(command="echo ran"))
        task = await original.take()
        accepted = records.Accepted(task.id, task.attempt, task.SerializeToString(), task.store_epoch, "f" * 32)
        with holding.folder(tmp_path / "one"):
            (tmp_path / "one" / "worker.journal").write_bytes(records.header("this-boot") + records.encode(accepted))
            await asyncio.to_thread(shutil.copytree, tmp_path / "one", tmp_path / "two")
            await original.report(task, "running")
        with holding.folder(tmp_path / "two") as lock:
            async with node_parts.running(at.pool.address, tmp_path / "two", lock=lock) as node:

                async def has_ended() -> bool:
                    return (await at.info(task_id)).state in {"completed", "failed"}

                look: Callable[[], bool | Awaitable[bool]] = has_ended
                await waiting.wait_until(look, description="it has ended", seconds=20)
                assert node.runs.ran == []
        info = await at.info(task_id)
        assert (info.state, info.result.reason, info.attempt) == ("failed", "worker_crash", 1)
        assert recovery.COPIED in info.result.error
    # The folder is its own original now: that it may have begun is written down.
    assert recovery.COPIED.encode() in (tmp_path / "two" / "worker.journal").read_bytes()


@pytest.mark.long
async def test_a_worker_whose_node_lives_elsewhere_exits_75_and_says_what_to_do(tmp_path: Path) -> None:
    pool = ScriptedPool()
    pool.fail["RegisterNode"] = [errors.StateInUse("node-1 lives")]
    async with serving(pool) as address:
        refused = await _worker(address, tmp_path)
    assert refused.returncode == 75, refused.stderr
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("hivemind:")]
    assert "another worker runs under this node's id" in line
    assert "--node-id" in line
    assert "--state-dir" in line


async def test_a_worker_whose_session_is_replaced_ends_its_tasks_and_exits_75(tmp_path: Path) -> None:
    pool = ScriptedPool()
    pool.register_answer.heartbeat_seconds = 0.2
    async with serving(pool) as address:
        await pool.give(pb.Task(id="t", attempt=1, type="command", command="sleep 600"))
        working = asyncio.create_task(_worker(address, tmp_path))
        await waiting.wait_until(
            lambda: any(report.status == "running" for report in pool.reports), description="it runs", seconds=30
        )
        pool.fail["UpdateNodeStatus"] = [errors.StateInUse("another has registered")]
        ended = await working
    assert ended.returncode == 75, ended.stderr


async def _worker(address: str, folder: Path, node_id: str = "node-1") -> subprocess.CompletedProcess[str]:
    words = [f"--node-pool={address}", f"--state-dir={folder / 'state'}", f"--log-dir={folder / 'log'}"]
    return await asyncio.to_thread(
        subprocess.run,
        [*mortal.COMMAND, "worker", *words, "--isolation=sandbox", "--grace-seconds=1", f"--node-id={node_id}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.long
@pytest.mark.sandbox
async def test_a_copied_folder_costs_the_original_and_its_task_nothing(tmp_path: Path) -> None:
    words = ("--isolation=sandbox", "--log-format=json", "--heartbeat-interval=1", "--grace-seconds=1")
    async with mortal.node(tmp_path, *words, pool={"lease_seconds": 30.0}) as worker:
        await worker.start()
        task_id = await worker.submit("i=0; while [ $i -lt 240 ]; do i=$((i+1)); sleep 0.05; done; echo whole")

        async def runs() -> bool:
            return (await worker.at.info(task_id)).state == "running"

        look: Callable[[], bool | Awaitable[bool]] = runs
        await waiting.wait_until(look, description="it runs", seconds=30)
        copy = tmp_path / "copy"
        copy.mkdir()
        copying = await asyncio.create_subprocess_exec("cp", "-a", worker.state, copy / "state")
        assert await copying.wait() in {0, 1}  # 1: a file that was there a moment ago
        refused = await _worker(worker.at.pool.address, copy, worker.node_id)
        assert refused.returncode == 75, refused.stderr
        assert '"worker_started"' not in refused.stderr
        info = await worker.ended(task_id)
        assert (info.state, info.attempt, info.result.logs) == ("completed", 1, "whole\n"), worker.log()
