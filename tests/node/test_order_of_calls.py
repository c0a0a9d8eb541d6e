"""In which order a worker tells and asks: the end of a short task first, beside its record, then the next question."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import node_parts
import pytest
import waiting
from scripted_pool import ScriptedPool, serving

from hivemind_worker.wire import calls
from hivemind_worker.worker import intake

pb = calls.pb


class _Ordered(ScriptedPool):
    """Writes down in which order it is asked, and answers ends when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def GetAssignedTasks(  # noqa: N802
        self, request: pb.GetAssignedTasksRequest, context: calls.Context
    ) -> pb.GetAssignedTasksResponse:
        self.order.append("poll")
        answer = await super().GetAssignedTasks(request, context)
        if answer.tasks:
            self.order.append("given")
        return answer

    def after_the_end(self) -> list[str]:
        """What came after the end was told."""
        return self.order[self.order.index("end") + 1 :] if "end" in self.order else []

    def since_given(self) -> list[str]:
        """What came since the task was handed out. That may be twice: a node asks anew where its fitness changes."""
        return self.order[len(self.order) - self.order[::-1].index("given") :]

    async def ReportTaskResult(  # noqa: N802
        self, request: pb.ReportTaskResultRequest, context: calls.Context
    ) -> pb.ReportTaskResultResponse:
        if request.status != "running":
            self.order.append("end")
            await self.gate.wait()
            self.order.append("answered")
        return await super().ReportTaskResult(request, context)


def _task(task_id: str, command: str) -> pb.Task:
    return pb.Task(id=task_id, type="command", command=command, attempt=1)


async def test_a_short_task_is_told_of_before_the_next_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "SETTLE_SECONDS", 20.0)
    monkeypatch.setattr(intake, "TELL_SECONDS", 20.0)
    pool = _Ordered()
    async with serving(pool) as address, node_parts.running(address, tmp_path):
        for number in range(3):
            await waiting.wait_until(lambda: pool.order[-1:] == ["poll"], description="the poll is out")
            pool.order.clear()
            await pool.give(_task(f"t{number}", "true"))
            await waiting.wait_until(lambda: "poll" in pool.after_the_end(), description="the next poll", seconds=20)
            assert pool.since_given() == ["end", "answered", "poll"]


async def test_a_question_waits_neither_for_a_long_task_nor_for_a_slow_answer(tmp_path: Path) -> None:
    pool = _Ordered()
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        await pool.give(_task("long", "sleep 60"))
        await waiting.wait_until(lambda: len(pool.polls) > 1, description="asked beside a long task")
        await pool.cancel("long")
        pool.gate.clear()
        await waiting.wait_until(lambda: "end" in pool.order, description="the end is told")
        before = len(pool.polls)
        await pool.give(_task("next", "true"))
        await waiting.wait_until(lambda: len(pool.polls) > before, description="asked beside a slow answer")
        assert "answered" not in pool.order
        pool.gate.set()
        await waiting.wait_until(lambda: node.node.snapshot().ended == 2, description="both delivered")


async def test_an_end_is_told_beside_its_record_and_let_go_of_after_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, real, journal = threading.Event(), os.fdatasync, tmp_path / "worker.journal"

    def slow(fd: int) -> None:
        if threading.current_thread().name.startswith("journal") and b'"kind":"ended"' in journal.read_bytes():
            assert free.wait(60)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", slow)
    pool = ScriptedPool()
    async with serving(pool) as address, node_parts.running(address, tmp_path) as node:
        try:
            await pool.give(_task("t", "true"))
            await waiting.wait_until(lambda: "t" in pool.ends(), description="the report, beside the record")
            assert node.node.snapshot().ended == 0
            assert b'"kind":"closed"' not in journal.read_bytes()
        finally:
            free.set()
        await waiting.wait_until(lambda: node.node.snapshot().ended == 1, description="let go of")
        kinds = [line.split(b'"kind":"')[1].split(b'"')[0] for line in journal.read_bytes().splitlines()[1:]]
        assert kinds == [b"accepted", b"started", b"ended", b"closed"]
