"""What every store must do about tasks: kept, queued, handed out in order, found, there after a restart."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from store_parts import LARGE, LEASE, ROOM, Clock, Opener, ended, one, poll, session, take, task

from hivemind_worker import errors
from hivemind_worker.pool.store import records, store
from hivemind_worker.tasks import state


async def test_a_task_from_submission_to_result(kept: store.Store) -> None:
    changes: list[records.Change] = []
    kept.listen(changes.extend)
    (task_id,) = await kept.submit([task()])
    here = await session(kept)
    handed = await take(kept, "n", here)
    assert handed == records.Handed(task_id, 1, b"body of ")
    assert (await kept.report(records.Report(task_id, "n", here, 1))).verdict is records.Verdict.ACCEPTED
    assert (await one(kept, task_id)).state is state.TaskState.RUNNING
    assert (await kept.report(ended(handed, "n", here))).verdict is records.Verdict.ACCEPTED
    found = await one(kept, task_id)
    assert (found.state, found.result, found.node_id) == (state.TaskState.COMPLETED, b"completed 1 by n", "n")
    assert [event.event for event in await kept.story(task_id)] == ["submit", "assign", "start", "complete"]
    assert [str(change.state) for change in changes] == ["queued", "assigned", "running", "completed"]
    assert (await kept.counts())["completed"] == 1


async def test_submission_is_all_or_nothing_and_repeatable(kept: store.Store) -> None:
    ids = await kept.submit([task("a"), task()], "key", "digest")
    assert await kept.submit([task("a"), task()], "key", "digest") == ids
    with pytest.raises(errors.Conflict, match="idempotency key"):
        await kept.submit([task("b")], "key", "another")
    assert await kept.submit([task("a")]) == ("a",)
    other = dataclasses.replace(task("a"), digest="something else")
    with pytest.raises(errors.Conflict, match="'a'"):
        await kept.submit([task("c"), other])
    with pytest.raises(errors.NoSuchTask):
        await kept.tasks(["c"])
    assert sum((await kept.counts()).values()) == 2


async def test_priority_then_age_and_what_fits_nobody_blocks_nobody(kept: store.Store) -> None:
    await kept.submit([task("huge", shape=LARGE, priority=9), task("old"), task("new"), task("urgent", priority=5)])
    here = await session(kept)
    given = await poll(kept, "n", here, most=5)
    assert [handed.task_id for handed in given.tasks] == ["urgent", "old", "new"]


async def test_one_batch_answers_all_polls_and_no_attempt_twice(kept: store.Store) -> None:
    await kept.submit([task(f"t{number}") for number in range(10)])
    names = [f"n{number}" for number in range(4)]
    polls = [records.Poll(name, await session(kept, name), ROOM, most=3) for name in names]
    polls.insert(2, records.Poll("stranger", "", ROOM))
    given = await kept.hand_out(polls)
    assert isinstance(given.pop(2).refused, errors.UnknownNode)
    assert sorted(len(each.tasks) for each in given) == [2, 2, 3, 3]
    assert sorted(handed.task_id for each in given for handed in each.tasks) == [f"t{number}" for number in range(10)]


async def test_a_drained_node_gets_nothing_until_it_is_resumed(kept: store.Store) -> None:
    await kept.submit([task("a")])
    here = await session(kept)
    await kept.drain("n", draining=True)
    assert not await poll(kept, "n", here)
    assert (await kept.heartbeat(records.Beat("n", here))).draining
    await kept.drain("n", draining=False)
    assert await poll(kept, "n", here)
    with pytest.raises(errors.UnknownNode):
        await kept.drain("nobody", draining=True)


async def test_ended_tasks_are_submitted_anew(kept: store.Store) -> None:
    await kept.submit([task("a")])
    with pytest.raises(errors.Conflict, match="queued"):
        await kept.retry(["a"])
    await kept.cancel(["a"])
    (new,) = await kept.retry(["a"])
    found = await one(kept, new)
    assert (found.retry_of, found.state) == ("a", state.TaskState.QUEUED)
    assert (await take(kept, "n", await session(kept))).body == b"body of a"


async def test_pages_of_tasks(kept: store.Store) -> None:
    await kept.submit([dataclasses.replace(task(f"t{n}"), labels={"half": str(n % 2)}) for n in range(10)])
    await kept.cancel(["t1"])
    first = await kept.find(records.Filter(labels={"half": "1"}, most=3))
    assert [each.id for each in first] == ["t9", "t7", "t5"]
    rest = await kept.find(records.Filter(labels={"half": "1"}, most=3, before=first[-1].number))
    assert [each.id for each in rest] == ["t3", "t1"]
    assert [each.id for each in await kept.find(records.Filter(states=("cancelled",)))] == ["t1"]
    assert await kept.find(records.Filter(kind="python")) == ()


async def test_all_is_there_after_opening_again_and_leases_begin_anew(opener: Opener, clock: Clock) -> None:
    first = opener()
    await first.open()
    await first.submit([task("a"), task("b")], "key", "digest")
    here = await session(first)
    handed = await take(first, "n", here)
    clock.seconds += LEASE * 0.9
    await first.close()
    clock.seconds += LEASE * 10
    second = opener()
    await second.open()
    clock.seconds += LEASE * 0.9
    assert (await second.expire()).nodes == ()
    assert await second.submit([task("a"), task("b")], "key", "digest") == ("a", "b")
    assert (await second.report(ended(handed, "n", here))).verdict is records.Verdict.ACCEPTED
    clock.seconds += LEASE
    assert (await second.expire()).nodes == ("n",)
    (known,) = await second.nodes()
    assert (known.node_id, known.alive, known.capacity) == ("n", False, ROOM)
    await second.close()


async def test_one_request_that_fails_harms_no_other_of_its_transaction(kept: store.Store) -> None:
    await kept.submit([task("there")])
    clash = dataclasses.replace(task("there"), digest="another")
    asked = [kept.submit([task(f"t{n}"), clash] if n % 3 == 0 else [task(f"t{n}")]) for n in range(30)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, errors.Conflict) for answer in answers) == 10
    assert (await kept.counts())["queued"] == 21
