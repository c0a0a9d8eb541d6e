from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import node_parts
import pytest
import waiting
from scripted_pool import ScriptedPool, serving

from hivemind_worker import errors
from hivemind_worker.concurrency import stopping
from hivemind_worker.wire import calls
from hivemind_worker.worker.attempts import turns

pb = calls.pb
MIB = 1024**2


def _task(task_id: str, command: str, attempt: int = 1, **more: Any) -> pb.Task:
    return pb.Task(id=task_id, type="command", command=command, attempt=attempt, **more)


async def test_results_are_uploaded_then_named_and_then_forgotten_here(tmp_path: Path) -> None:
    pool = ScriptedPool()
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        await pool.give(_task("t", "head -c 3000000 /dev/zero > results/big; printf x > results/small; : > results/no"))
        await waiting.wait_until(lambda: "t" in pool.ends(), description="the report")
        result = pool.ends()["t"].result
        sizes = {file.name: file.size for file in result.files}
        assert sizes == {"big": 3_000_000, "small": 1, "no": 0}
        assert all(len(pool.stored[file.sha256]) == file.size for file in result.files)
        assert not result.result_data
        await waiting.wait_until(lambda: not list(node.files.artifacts()), description="files gone once acknowledged")


async def test_a_broken_upload_goes_on_where_it_stopped(tmp_path: Path) -> None:
    pool = ScriptedPool()
    pool.break_upload_after = 5 * MIB
    async with serving(pool) as address, node_parts.running(address, tmp_path):
        await pool.give(_task("t", "head -c 8388608 /dev/urandom > results/big"))
        await waiting.wait_until(lambda: "t" in pool.ends(), description="the report", seconds=20)
    (file,) = pool.ends()["t"].result.files
    assert hashlib.sha256(pool.stored[file.sha256]).hexdigest() == file.sha256
    assert pool.received_bytes == 8 * MIB


def _remove(file: Path) -> None:
    file.unlink()


def _damage(file: Path) -> None:
    file.chmod(0o600)
    file.write_bytes(b"")


def _break(file: Path) -> None:
    # What the kernel answers for a sector that cannot be read: EIO.
    file.unlink()
    file.symlink_to("/proc/self/mem")


@pytest.mark.parametrize("spoil", [_remove, _damage, _break])
async def test_a_result_file_that_this_nodes_disk_does_not_give_back_costs_no_attempt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    # It was once refused for good, and the pool, which had heard of no end, asked for it a hundred times a second.
    monkeypatch.setattr(turns, "LEAST_SECONDS", 0.01)
    pool = ScriptedPool()
    pool.fail["UploadArtifact"] = [errors.Unavailable("not now")] * 1_000
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        await pool.give(_task("t", "printf x > results/f"))
        await waiting.wait_until(lambda: pool.calls["UploadArtifact"], description="the first try")
        (artifact,) = node.files.artifacts()
        spoil(node.files.path(artifact.sha256))
        await waiting.wait_until(lambda: "t" in pool.ends(), description="the report", seconds=20)
    result = pool.ends()["t"].result
    assert (result.status, result.reason, list(result.files)) == ("failed", "node_shutdown", [])
    assert "lost a result file" in result.error


async def test_a_disk_that_gives_back_no_output_costs_no_result(tmp_path: Path) -> None:
    pool = ScriptedPool()
    async with serving(pool) as address:
        port = int(address.rpartition(":")[2])
        async with node_parts.running(address, tmp_path) as node:
            pool.output_gate.clear()
            pool.fail["ReportTaskResult"] = [errors.Unavailable("not now")] * 100
            await pool.give(_task("t", "echo much; echo x > results/x"))
            ended = "the end waits"
            await waiting.wait_until(lambda: node.node._books.outbox.owed_bytes, description=ended, seconds=20)
    (output,) = (tmp_path / "outbox").glob("*.log")
    output.unlink()
    output.mkdir()  # it is there, and cannot be opened
    pool.fail.clear()
    pool.output_gate.set()
    async with serving(pool, port), node_parts.running(address, tmp_path):
        await waiting.wait_until(lambda: "t" in pool.ends(), description="the report", seconds=20)
    result = pool.ends()["t"].result
    assert (result.status, [file.name for file in result.files]) == ("completed", ["x"])
    assert result.logs == "much\n"


async def test_inputs_are_fetched_once_for_all_resumed_and_checked(tmp_path: Path) -> None:
    pool = ScriptedPool()
    content = bytes(range(256)) * 20_000
    name = hashlib.sha256(content).hexdigest()
    pool.stored[name] += content
    pool.break_download_after = 2 * MIB
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        refs = {"in/data": pb.ArtifactRef(sha256=name, size=-1)}
        tasks = [_task(f"t{number}", "sha256sum in/data", input_artifacts=refs) for number in range(3)]
        await pool.give(*tasks)
        await waiting.wait_until(lambda: len(pool.ends()) == 3, description="three reports", seconds=20)
        assert not list(node.files.artifacts())
    assert all(name in report.result.logs for report in pool.ends().values())
    assert pool.calls["DownloadArtifact"] <= 4  # one try broke; nobody fetched what another had


async def test_an_input_that_the_pool_does_not_have_fails_the_task_not_the_node(tmp_path: Path) -> None:
    pool = ScriptedPool()
    async with serving(pool) as address, node_parts.running(address, tmp_path):
        refs = {"x": pb.ArtifactRef(sha256="0" * 64, size=1)}
        await pool.give(_task("t", "true", input_artifacts=refs), _task("next", "true"))
        await waiting.wait_until(lambda: len(pool.ends()) == 2, description="both reports")
    assert pool.ends()["t"].result.reason == "invalid_task"
    assert "input_files" in pool.ends()["t"].result.error
    assert pool.ends()["next"].status == "completed"


async def test_a_report_is_repeated_until_it_is_acknowledged_and_delivered_once(tmp_path: Path) -> None:
    pool = ScriptedPool()
    pool.fail["ReportTaskResult"] = [errors.Unavailable("busy"), errors.Unavailable("still busy")]
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        await pool.give(_task("t", "true"))
        await waiting.wait_until(lambda: node.node.snapshot().ended == 1, description="the attempt ended")
    assert len([report for report in pool.reports if report.status != "running"]) == 1
    assert pool.calls["ReportTaskResult"] == 3


async def test_a_missing_artifact_is_uploaded_again(tmp_path: Path) -> None:
    pool = ScriptedPool()
    pool.fail["ReportTaskResult"] = [errors.Rejected("lost it", "MISSING_ARTIFACT")]
    async with serving(pool) as address, node_parts.running(address, tmp_path):
        await pool.give(_task("t", "sleep 0.01; echo x > results/x"))
        await waiting.wait_until(lambda: pool.calls["UploadArtifact"] == 1, description="the upload")
        pool.stored.clear()
        await waiting.wait_until(lambda: "t" in pool.ends(), description="the report")
    assert pool.calls["UploadArtifact"] == 2


async def test_a_result_beyond_the_pool_s_limit_is_left_out_and_named(tmp_path: Path) -> None:
    pool = ScriptedPool()
    pool.fail["UploadArtifact"] = [errors.Rejected("16 GiB at most", "TOO_LARGE")]
    async with serving(pool) as address, node_parts.running(address, tmp_path):
        await pool.give(_task("t", "echo x > results/x"))
        await waiting.wait_until(lambda: "t" in pool.ends(), description="the report")
    result = pool.ends()["t"].result
    assert [skipped.name for skipped in result.skipped] == ["x"]
    assert list(result.flags) == ["results_truncated"]
    assert result.status == "completed"


async def test_a_pool_that_forgets_us_is_told_again_and_the_tasks_go_on(tmp_path: Path) -> None:
    pool = ScriptedPool()
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        await pool.give(_task("t", "sleep 0.5; echo done"))
        await waiting.wait_until(lambda: node.node.snapshot().attempts, description="the task is held")
        pool.forget()
        await waiting.wait_until(lambda: "t" in pool.ends(), description="the report", seconds=20)
        await waiting.wait_until(lambda: len(pool.registered) == 2, description="registered again")
    assert [ref.task_id for ref in pool.registered[1].held] == ["t"]
    assert node.runs.ran == [("t", 1)]
    assert pool.registered[0].boot_id == pool.registered[1].boot_id


async def test_attempts_that_a_new_session_does_not_want_are_dropped_without_a_report(tmp_path: Path) -> None:
    pool = ScriptedPool()
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        await pool.give(_task("t", "sleep 60"))
        await waiting.wait_until(lambda: node.runs.running == 1, description="the task runs")
        pool.register_answer.drop.append(pb.AttemptRef(task_id="t", attempt=1))
        pool.forget()
        await waiting.wait_until(lambda: not node.node.snapshot().attempts, description="the attempt is gone")
    assert pool.ends() == {}


async def test_a_pool_that_comes_late_is_found_and_one_that_went_is_found_again(tmp_path: Path) -> None:
    pool = ScriptedPool()
    async with serving(pool) as address:
        port = int(address.rpartition(":")[2])
    async with node_parts.running(address, tmp_path) as node:
        await waiting.wait_until(lambda: node.node.snapshot().trouble, description="the node misses its pool")
        async with serving(pool, port):
            await waiting.wait_until(lambda: node.node.snapshot().connected, description="registered", seconds=20)
            await pool.give(_task("t", "sleep 1; echo x > results/x"))
            await waiting.wait_until(lambda: node.runs.running == 1, description="the task runs")
        await waiting.wait_until(lambda: node.runs.running == 0, description="it ends while the pool is away")
        async with serving(pool, port):
            await waiting.wait_until(lambda: "t" in pool.ends(), description="the report", seconds=30)


async def test_another_worker_with_our_node_id_ends_this_one(tmp_path: Path) -> None:
    pool = ScriptedPool()
    async with serving(pool) as address:
        node = node_parts.Node(address, tmp_path)
        pool.fail["UpdateNodeStatus"] = [errors.StateInUse("taken over")]
        failed: BaseException | None = None
        try:
            await node.node.run(node.stop)
        except errors.HiveMindError as error:
            failed = error
    assert isinstance(failed, errors.StateInUse)
    assert "--node-id" in str(failed)
    assert pool.calls["RegisterNode"] == 1


async def test_an_attempt_handed_out_twice_runs_once_and_is_reported_again(tmp_path: Path) -> None:
    pool = ScriptedPool()
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        await pool.give(_task("t", "echo once"))
        await waiting.wait_until(lambda: node.node.snapshot().ended == 1, description="the attempt ended")
        await pool.give(_task("t", "echo once"))
        await waiting.wait_until(
            lambda: len([report for report in pool.reports if report.status == "completed"]) >= 2,
            description="the report again",
        )
    assert node.runs.ran == [("t", 1)]


async def test_a_newer_attempt_fences_the_older_and_an_older_is_not_begun(tmp_path: Path) -> None:
    pool = ScriptedPool()
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        await pool.give(_task("t", "sleep 60", attempt=2))
        await waiting.wait_until(lambda: node.runs.running == 1, description="the older runs")
        await pool.give(_task("t", "sleep 60", attempt=1), _task("t", "echo new", attempt=3))
        await waiting.wait_until(lambda: "t" in pool.ends(), description="the report of the newer")
        await waiting.wait_until(lambda: not node.node.snapshot().attempts, description="both are gone")
    assert {report.attempt for report in pool.reports if report.status != "running"} == {3}
    assert node.runs.ran == [("t", 2), ("t", 3)]


async def test_an_older_attempt_is_not_begun_after_a_newer_has_ended(tmp_path: Path) -> None:
    pool = ScriptedPool()
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        await pool.give(_task("t", "echo new", attempt=2))
        await waiting.wait_until(lambda: node.node.snapshot().ended == 1, description="the newer has ended")
        await pool.give(_task("t", "echo old", attempt=1), _task("u", "echo other"))
        await waiting.wait_until(lambda: "u" in pool.ends(), description="what came with the older has ended")
    assert node.runs.ran == [("t", 2), ("u", 1)]


async def test_a_pool_without_log_streams_and_uploads_still_gets_small_results(tmp_path: Path) -> None:
    pool = ScriptedPool()
    no = [errors.NotImplementedByPeer("no such call")] * 9
    pool.fail["AppendTaskLogs"], pool.fail["UploadArtifact"] = list(no), list(no)
    async with serving(pool) as address, node_parts.running(address, tmp_path):
        await pool.give(_task("t", "echo said; echo x > results/x"))
        await waiting.wait_until(lambda: "t" in pool.ends(), description="the report")
    result = pool.ends()["t"].result
    assert dict(result.result_data) == {"x": b"x\n"}
    assert result.logs == "said\n"


async def test_a_hundred_thousand_tasks_in_one_answer_do_no_harm(tmp_path: Path) -> None:
    pool = ScriptedPool()
    flood = pb.GetAssignedTasksResponse(success=True)
    flood.tasks.extend(_task(f"t{number}", "true") for number in range(20_000))
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        node.node._intake._take(flood)
        held = len(node.node.snapshot().attempts)
        assert 0 < held <= 256
        await waiting.wait_until(lambda: node.node.snapshot().ended == held, description="those ended", seconds=60)
        await waiting.wait_until(lambda: len(pool.beats) > 1, description="heartbeats go on")


async def test_a_poll_names_the_images_that_are_here(tmp_path: Path) -> None:
    pool = ScriptedPool()
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        node.runs.images = ("python:3.11-slim", "busybox")
        polls = len(pool.polls)
        node.node._room.changed.set()
        await waiting.wait_until(lambda: len(pool.polls) > polls, description="the next poll")
        assert list(pool.polls[-1].images) == ["python:3.11-slim", "busybox"]


async def test_draining_by_the_pool_is_said_and_the_polls_stay_open(tmp_path: Path) -> None:
    pool = ScriptedPool()
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        await waiting.wait_until(lambda: pool.polls and not pool.polls[-1].paused, description="an open poll")
        pool.beat_answer = pb.UpdateNodeStatusResponse(success=True, draining=True)
        await waiting.wait_until(lambda: pool.beats and pool.beats[-1].status == "draining", description="it says so")
        assert not pool.polls[-1].paused  # what comes after the drain must not wait for a heartbeat
        pool.beat_answer = pb.UpdateNodeStatusResponse(success=True)
        await waiting.wait_until(lambda: pool.beats[-1].status == "idle", description="it says that this is over")
        node.stop.request(stopping.StopLevel.DRAIN, "enough")
        await waiting.wait_until(lambda: pool.beats[-1].status == "offline", description="the last word")
