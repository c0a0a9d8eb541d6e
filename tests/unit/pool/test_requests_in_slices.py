"""Ten thousand tasks in one call are read in slices: the pool answers others between two of them."""

from __future__ import annotations

import asyncio

import pytest

from hivemind_worker import errors
from hivemind_worker.pool.api import requests
from hivemind_worker.tasks import outcome
from hivemind_worker.wire import calls

pb = calls.pb


async def test_others_have_their_turns_while_tasks_are_read() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.create_task(others())
    message = pb.Task(command="true", labels={"a": "b"})
    tasks, inputs = await requests.new_tasks([message] * 3_000, 3)
    beside.cancel()
    assert (len(tasks), inputs) == (3_000, [])
    assert turns >= 5  # it takes more than 100 ms


async def test_the_files_are_those_of_all_tasks_and_a_fault_names_its_task() -> None:
    ref = pb.ArtifactRef(sha256="a" * 64, size=3)
    message = pb.Task(command="true", input_artifacts={"in": ref})
    _, inputs = await requests.new_tasks([pb.Task(command="true"), message], 3)
    assert inputs == [outcome.Artifact("a" * 64, 3)]
    with pytest.raises(errors.InvalidTask, match=r"tasks\[1\]"):
        await requests.new_tasks([message, pb.Task()], 3)
    with pytest.raises(errors.InvalidTask, match="there are none"):
        await requests.new_tasks([], 3)


async def test_what_tasks_have_alike_is_kept_once() -> None:
    message = pb.Task(command="true", labels={"a": "b"}, memory_limit="64m")
    tasks, _ = await requests.new_tasks([message] * 100, 3)
    assert len({id(task.shape) for task in tasks}) == 1
    assert len({id(task.labels) for task in tasks}) == 1
