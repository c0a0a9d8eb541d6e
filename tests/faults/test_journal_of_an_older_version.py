"""L13: what a worker of the version before had written down is gone on with: ends, output, and what may have begun."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from pathlib import Path

import node_parts
import waiting
from scripted_pool import ScriptedPool, serving

from hivemind_worker.artifacts import spool
from hivemind_worker.tasks import outcome
from hivemind_worker.wire import calls, translate
from hivemind_worker.worker.journal import reader, records

pb = calls.pb


def _line(**fields: object) -> bytes:
    text = json.dumps(fields).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _leave(folder: Path) -> None:
    """One attempt that had ended, with output that had not been sent; and one that may have begun."""
    task = {name: pb.Task(id=name, attempt=1, type="command", command="echo again") for name in ("done", "open")}
    result = translate.outcome_to_message(
        outcome.Outcome(outcome.Status.COMPLETED, exit_code=0, logs=outcome.Logs(b"kept\n", 5))
    )
    lines = [
        _line(kind="accepted", task_id=name, attempt=1, task=base64.b64encode(message.SerializeToString()).decode())
        for name, message in task.items()
    ]
    ended = base64.b64encode(result.SerializeToString()).decode()
    lines.append(_line(kind="ended", task_id="done", attempt=1, result=ended))
    (folder / "worker.journal").write_bytes(b"hivemind-journal 1\n" + b"".join(lines))
    (folder / "outbox").mkdir()
    name = hashlib.sha256(b"done\x001").hexdigest()[:32]
    output = spool.Spool(folder / "outbox" / f"{name}.log")
    output.add(calls.pb.LOG_STREAM_STDOUT, 0, b"kept\n")
    output.close()


async def test_l13_what_the_version_before_had_written_is_delivered_and_nothing_runs_twice(tmp_path: Path) -> None:
    _leave(tmp_path)
    pool = ScriptedPool()
    pool.register_answer.store_epoch = "e" * 32
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        await waiting.wait_until(lambda: len(pool.ends()) == 2, description="both are reported", seconds=20)
        await waiting.wait_until(lambda: not node.node.snapshot().attempts, description="nothing is held")
        assert node.runs.ran == []
    ends = pool.ends()
    assert (ends["done"].status, ends["done"].result.logs) == ("completed", "kept\n")
    assert (ends["open"].status, ends["open"].result.reason) == ("failed", "worker_crash")
    assert reader.OLDER_VERSION in ends["open"].result.error
    assert [chunk.data for chunk in pool.output["done"].values()] == [b"kept\n"]
    assert (tmp_path / "worker.journal").read_bytes().startswith(records.HEADER.encode())
    assert not list((tmp_path / "outbox").iterdir())
