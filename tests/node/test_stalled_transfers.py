"""Result files that cannot be read, as their disk stands still, hold up no report, no output, and no other work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pool_parts
import waiting

from hivemind_worker.artifacts import spool, store
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import executor
from hivemind_worker.tasks import attempt_id, outcome
from hivemind_worker.wire import calls
from hivemind_worker.worker.attempts import log_streaming, reporting, turns
from hivemind_worker.worker.pool_link import channel, client, session

pb = calls.pb
STALLED = 2 * turns.AT_ONCE
SUMS = [f"{number:064x}" for number in range(STALLED)]


@contextlib.contextmanager
def stalled(files: store.Store, sums: Iterable[str]) -> Iterator[None]:
    """Files that block whoever opens them, until the block ends."""
    pipes = [files.path(sha256) for sha256 in sums]
    for pipe in pipes:
        pipe.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(pipe)
    try:
        yield
    finally:
        for pipe in pipes:
            end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
            pipe.unlink()  # whoever comes now finds none
            os.close(end)


@contextlib.asynccontextmanager
async def talking(address: str) -> AsyncIterator[tuple[client.NodePoolClient, session.Session]]:
    """A node's line to the pool, with a session."""
    link = client.NodePoolClient(channel.Access(address))
    link.open()
    line, stop = session.Session(link), stopping.Stop()
    node = pb.RegisterNodeRequest(node_id="n", boot_id="b", cpu_cores=64, memory_gb=64, disk_gb=500)
    keeping = asyncio.create_task(line.keep(stop, lambda: node, lambda _: None))
    try:
        await waiting.wait_until(lambda: line.established, description="there is a session", seconds=30)
        yield link, line
    finally:
        await stopping.settle(keeping)
        await link.close()


async def deliver(reporter: reporting.Reporter, run: attempt_id.RunKey, *results: outcome.ResultFile) -> str:
    ended = outcome.Outcome(outcome.Status.FAILED, outcome.Reason.NONZERO_EXIT, exit_code=1, results=results)

    async def nothing() -> None:
        pass

    with reporter.turns.place() as place:
        return await reporter.deliver(run, ended, place, nothing)


async def test_files_that_cannot_be_read_hold_up_no_report_no_output_and_no_other_thread(tmp_path: Path) -> None:
    files = store.Store(tmp_path / "files")
    files.prepare()
    async with pool_parts.running(tmp_path / "pool") as at, talking(at.pool.address) as (link, line):
        await at.submit(*[pb.Task(command="true", cpu_quota=1_000, memory_limit="6m") for _ in range(STALLED + 1)])
        worker = pool_parts.Worker(at, "n", line.id)
        tasks: list[pb.Task] = []
        while len(tasks) <= STALLED:
            tasks += (await worker.poll(5, *tasks, most=64)).tasks
        runs = [
            attempt_id.RunKey(attempt_id.AttemptId(task.id, task.attempt, task.store_epoch), "r" * 32) for task in tasks
        ]
        reporter = reporting.Reporter(link, line, files, "n")
        output = spool.Spool(tmp_path / "output")
        stream = log_streaming.LogStream(link, line, log_streaming.Source("n", lambda: runs[-1]), output)
        with stalled(files, SUMS):
            stuck = [
                asyncio.create_task(deliver(reporter, run, outcome.ResultFile("f", outcome.Artifact(sha256, 5))))
                for run, sha256 in zip(runs, SUMS, strict=False)
            ]
            reads = [asyncio.create_task(anext(files.chunks(sha256))) for sha256 in SUMS]
            await waiting.wait_until(
                lambda: sum(name.startswith("artifacts") for name in thread_names()) >= store.THREADS,
                description="every thread for files stands still",
                seconds=20,
            )
            async with asyncio.timeout(20):
                assert await asyncio.to_thread(lambda: "read") == "read", "other threads are free"
                stream.add(executor.Stream.STDOUT, 0, b"line\n")
                await stream.rest()
                assert not stream.waiting
                assert await deliver(reporter, runs[-1]) == "accepted"
            assert not any(task.done() for task in stuck)
            for task in (*stuck, *reads):
                task.cancel()
        await asyncio.wait((*stuck, *reads))
        assert (await at.info(tasks[-1].id)).state == "failed"
        output.close()
        files.close()


def thread_names() -> list[str]:
    """The names of this process's threads."""
    return [thread.name for thread in threading.enumerate()]
