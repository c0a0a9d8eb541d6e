"""A node that names result files as no file can be named: the others are downloaded, and it is told."""

from __future__ import annotations

from pathlib import Path

import pool_parts
import pytest

from hivemind_worker import errors
from hivemind_worker.client import asynchronous, fetching
from hivemind_worker.pool.store import records
from hivemind_worker.tasks import outcome
from hivemind_worker.wire import calls

pb = calls.pb
BAD = ["../x", "/etc/x", "", "a\0b", "n" * 5000, "good", "good/beneath", "a/../../y"]


async def test_i01_bad_result_names_are_set_aside_and_the_good_files_come(tmp_path: Path) -> None:
    async with (
        pool_parts.running(tmp_path / "pool") as at,
        asynchronous.AsyncClient(at.pool.address) as client,
    ):
        worker = await at.worker()
        (task_id,) = await client.submit([{"command": "true"}])
        task = await worker.take()
        (stored,) = await at.pool._parts.files.keep([b"x"])
        names = ["good", "odd\nname", *BAD]
        files = [pb.ResultFile(name=name, size=1, sha256=stored.sha256) for name in names]
        answer = await worker.report(task, files=files, result_data={"../inline": b"1", "inline": b"2"})
        assert answer.verdict == pb.VERDICT_ACCEPTED
        fetched = await client.download(task_id, tmp_path / "deep" / "out")
        assert sorted(path.name for path in fetched) == ["good", "inline", "odd\nname"]
        assert sorted(path.name for path in (tmp_path / "deep").rglob("*")) == ["good", "inline", "odd\nname", "out"]
        ended = await client.task(task_id)
        assert ended.result is not None
        assert len(ended.result.skipped) == len(BAD) + 1
        assert all("set aside by the pool" in file.why for file in ended.result.skipped)


async def test_i01_a_client_fetches_the_good_files_from_a_pool_that_names_bad_ones(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    (out / "one").mkdir(parents=True)
    (out / "other").symlink_to("one")
    (out / "folder").mkdir()
    async with (
        pool_parts.running(tmp_path / "pool") as at,
        asynchronous.AsyncClient(at.pool.address) as client,
    ):
        worker = await at.worker()
        (task_id,) = await client.submit([{"command": "true"}])
        task = await worker.take()
        (stored,) = await at.pool._parts.files.keep([b"x"])
        names = ["../x", "good", "one/same", "other/same", "good/beneath", "folder", "long" * 100]
        files = [pb.ResultFile(name=name, size=1, sha256=stored.sha256) for name in names]
        body = pb.TaskResult(status="completed", files=files).SerializeToString()
        report = records.Report(task.id, worker.name, worker.session_id, task.attempt,
                                status=outcome.Status.COMPLETED, body=body)  # fmt: skip
        await at.pool._parts.store.report(report)  # as a pool did that looked at no name
        fetched = await client.download(task_id, out)
        assert [str(path.relative_to(out)) for path in fetched] == ["good", "one/same"]
        assert {file.name for file in fetched.skipped} == set(names) - {"good", "one/same"}
        assert not (tmp_path / "x").exists()
        with pytest.raises(errors.Rejected, match="cannot be fetched"):
            await fetching.download(client._open, task_id, out, ["../x"], lambda *_: None)
    assert not [path for path in out.iterdir() if path.name.endswith(".part")]
