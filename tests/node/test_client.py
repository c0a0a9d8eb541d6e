"""Client and AsyncClient against the embedded pool: everything a submitter may ask."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import node_parts
import pytest
import pytest_asyncio

from hivemind_worker import errors
from hivemind_worker.client import asynchronous
from hivemind_worker.pool import server
from hivemind_worker.pool.store import reading
from hivemind_worker.tasks import state
from hivemind_worker.wire import calls, channels


@pytest_asyncio.fixture
async def pool(tmp_path: Path) -> AsyncIterator[server.NodePool]:
    made = server.NodePool(tmp_path / "pool")
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def there(pool: server.NodePool) -> AsyncIterator[asynchronous.AsyncClient]:
    async with asynchronous.AsyncClient(pool.address) as made:
        yield made


async def test_many_tasks_keep_their_order(there: asynchronous.AsyncClient) -> None:
    ids = await there.submit([{"id": f"t{number}", "command": "true"} for number in range(2500)])
    assert ids == [f"t{number}" for number in range(2500)]
    assert len([task async for task in there.tasks(page=700)]) == 2500
    assert (await there.info()).tasks_by_state["queued"] == 2500


async def test_nothing_is_sent_where_one_is_wrong(there: asynchronous.AsyncClient) -> None:
    with pytest.raises(errors.InvalidTask) as caught:
        await there.submit([{"command": "true"}, {"command": "true", "timeout": -1}])
    assert caught.value.field == "timeout"
    assert [task async for task in there.tasks()] == []


async def test_a_key_makes_a_repeat_harmless(there: asynchronous.AsyncClient) -> None:
    tasks = [{"command": "true"}] * 1500
    assert await there.submit(tasks, key="k") == await there.submit(tasks, key="k")
    with pytest.raises(errors.Conflict):
        await there.submit([{"command": "false"}], key="k")


async def test_filters(there: asynchronous.AsyncClient) -> None:
    await there.submit([{"id": "a", "command": "true", "labels": {"x": "1"}}, {"id": "b", "code": "pass"}])
    await there.cancel("a")

    async def found(which: asynchronous.Filter) -> list[str]:
        return [task.id async for task in there.tasks(which)]

    assert await found(asynchronous.Filter(states=[state.TaskState.CANCELLED])) == ["a"]
    assert await found(asynchronous.Filter(type="python")) == ["b"]
    assert await found(asynchronous.Filter(labels={"x": "1"})) == ["a"]
    assert await found(asynchronous.Filter(node_id="nobody")) == []


async def test_watching_tells_each_state_once_and_ends(
    pool: server.NodePool, there: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    ids = await there.submit([{"command": "sleep 0.2"}, {"command": "exit 1"}])
    async with node_parts.running(pool.address, tmp_path / "work"):
        seen = [(task.id, task.status) async for task in there.watch(ids)]
    told = collections.Counter(seen)
    # A node that asks anew, for it is fit now, while an answer is on its way is given the same again.
    assert all(told[task_id, status] == 1 for task_id, status in told if status is not state.TaskState.ASSIGNED)
    assert {task_id for task_id, status in seen if status in state.ENDED} == set(ids)
    assert seen[0][1] is state.TaskState.QUEUED


async def test_watching_for_the_end_alone(
    pool: server.NodePool, there: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    (task_id,) = await there.submit({"command": "true"})
    request = calls.pb.WatchTasksRequest(task_ids=[task_id], ended_only=True)
    async with channels.open_channel(channels.Line(pool.address)) as line:
        told = calls.task_manager(line).WatchTasks(request)
        assert not (await anext(aiter(told))).HasField("task")  # the pool watches, and says nothing of the queued task
        async with node_parts.running(pool.address, tmp_path / "work"):
            assert [answer.task.state async for answer in told] == ["completed"]


async def test_waiting_for_a_task_that_goes_on_reads_nothing(
    pool: server.NodePool, there: asynchronous.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[object] = []
    ask = reading.Reader.ask

    async def noted(reader: reading.Reader, question: Any) -> Any:
        questions.append(question)
        return await ask(reader, question)

    monkeypatch.setattr(reading.Reader, "ask", noted)
    (task_id,) = await there.submit({"command": "true"})
    waits = asyncio.create_task(there.wait(task_id, 20))
    async with node_parts.running(pool.address, tmp_path / "work"):
        (task,) = await waits
    assert (task.status, questions) == (state.TaskState.COMPLETED, [])
    await there.wait(task_id, 20)  # it has ended: that has to be read
    assert questions


async def test_what_cannot_be_asked_is_refused_in_our_words(there: asynchronous.AsyncClient, tmp_path: Path) -> None:
    (task_id,) = await there.submit({"command": "true"})
    for asking in (there.task("nobody"), there.cancel("nobody"), there.retry("nobody"), there.results("nobody")):
        with pytest.raises(errors.NoSuchTask):
            await asking
    with pytest.raises(errors.HiveMindError):
        await there.retry(task_id)
    with pytest.raises(TimeoutError, match="1 of 1 tasks"):
        await there.wait(task_id, 0.05)
    with pytest.raises(errors.UserError, match="queued"):
        await there.download(task_id, tmp_path / "out")
    with pytest.raises(errors.HiveMindError):
        await there.drain("nobody")


async def test_a_result_that_is_not_there_is_told(
    pool: server.NodePool, there: asynchronous.AsyncClient, tmp_path: Path
) -> None:
    async with node_parts.running(pool.address, tmp_path / "work"):
        (task_id,) = await there.submit({"command": "echo a > results/a; echo b > results/b; : > results/empty"})
        await there.wait(task_id, 20)
        with pytest.raises(errors.UserError, match="it has"):
            await there.download(task_id, tmp_path / "out", ["c"])
        assert await there.download(task_id, tmp_path / "out", ["b"]) == [tmp_path / "out" / "b"]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b"]
        await there.download(task_id, tmp_path / "out")
        assert (tmp_path / "out" / "empty").read_bytes() == b""
