"""Every executor, doubles included: a start is on record before its task can begin, or the task never does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import attempts
import pytest
import pytest_asyncio
from subprocess_executor import SubprocessExecutor

from hivemind_worker import errors
from hivemind_worker.artifacts import store as stores
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import checkpoint
from hivemind_worker.tasks import outcome, state


@pytest_asyncio.fixture(
    params=[
        pytest.param("process", marks=pytest.mark.sandbox),
        pytest.param("docker", marks=pytest.mark.docker),
        "double",
    ]
)
async def each_executor(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[attempts.Bench]:
    if request.param == "docker":
        image = request.getfixturevalue("python_image")
        async with attempts.docker_bench(request.getfixturevalue("docker_url"), image, tmp_path) as made:
            yield made
    elif request.param == "process":
        async with attempts.process_bench(tmp_path) as made:
            yield made
    else:
        store = stores.Store(tmp_path / "artifacts")
        store.prepare()
        yield attempts.Bench(SubprocessExecutor(store), store, "no-image")


class Keeper:
    """Notes how far the task was as its start was put on record; ``refuses`` as a full disk does."""

    def __init__(self, watcher: attempts.Watcher, *, refuses: bool = False) -> None:
        self._watcher = watcher
        self._refuses = refuses
        self.starts: list[tuple[bool, bytes]] = []

    async def accepted(self) -> None:
        """It is."""

    async def placed(self, capsule: Mapping[str, str]) -> None:
        """Called with nothing of the task done yet."""
        assert capsule is not None
        self.starts.append((state.Phase.RUNNING in self._watcher.phases, self._watcher.text()))
        if self._refuses:
            raise errors.NodeFault("the disk is full")

    async def save(self, checkpoint: checkpoint.Checkpoint) -> None:
        """Not looked at."""

    async def ended(self, ended: outcome.Outcome) -> None:
        """Not looked at."""


async def test_the_start_is_on_record_before_the_task_can_begin(each_executor: attempts.Bench) -> None:
    watcher = attempts.Watcher()
    keeper = Keeper(watcher)
    plan = each_executor.plan(["sh", "-c", "echo began"])
    ended = await each_executor.executor.run(plan, stopping.Stop(), watcher, checkpoint.Custody(keeper))
    assert ended.status is outcome.Status.COMPLETED, ended
    assert keeper.starts == [(False, b"")]
    assert watcher.text() == b"began\n"


async def test_a_task_whose_start_cannot_be_put_on_record_does_not_begin(each_executor: attempts.Bench) -> None:
    watcher = attempts.Watcher()
    keeper = Keeper(watcher, refuses=True)
    plan = each_executor.plan(["sh", "-c", "echo began"])
    try:
        ended = await each_executor.executor.run(plan, stopping.Stop(), watcher, checkpoint.Custody(keeper))
    except errors.NodeFault:
        assert isinstance(each_executor.executor, SubprocessExecutor)
    else:
        assert ended.status is outcome.Status.FAILED
    assert len(keeper.starts) == 1
    assert (state.Phase.RUNNING in watcher.phases, watcher.text()) == (False, b"")
