"""What every store makes of failures whose cause nobody knows: one author's make no node rest, unrelated ones do."""

from __future__ import annotations

import dataclasses

import pytest
from store_parts import LEASE, SMALL, Clock, ended, one, poll, session, take, task

from hivemind_worker.pool.store import blame, moves, records, store
from hivemind_worker.tasks import outcome, state

NODE_FAULTS = (outcome.Reason.INTERNAL, outcome.Reason.ENGINE_LOST, outcome.Reason.WORKER_CRASH)
CHECK = outcome.NodeCheck


def _of(submitter: str, image: str, task_id: str = "", attempts: int = 3, priority: int = 0) -> records.NewTask:
    return dataclasses.replace(task(task_id, attempts=attempts, priority=priority), submitter=submitter, image=image)


async def _fails(
    kept: store.Store,
    name: str,
    session_id: str,
    reason: outcome.Reason = outcome.Reason.INTERNAL,
    check: outcome.NodeCheck = CHECK.NOT_NEEDED,
) -> str:
    handed = await take(kept, name, session_id)
    report = ended(handed, name, session_id, outcome.Status.FAILED, reason)
    await kept.report(dataclasses.replace(report, node_check=check))
    return handed.task_id


async def _rests(kept: store.Store, name: str = "n") -> float:
    return next(node.rest_seconds for node in await kept.nodes() if node.node_id == name)


# ---- pure ----


@pytest.mark.parametrize("reason", ["", *outcome.Reason])
@pytest.mark.parametrize("check", CHECK)
def test_only_the_nodes_own_word_blames_it_and_only_a_nodes_fault_is_in_doubt(
    reason: str, check: outcome.NodeCheck
) -> None:
    blamed = blame.judge(reason, check)
    if reason not in NODE_FAULTS:
        assert blamed is blame.Blame.NOBODY
    else:
        assert blamed is (blame.Blame.NODE if check is CHECK.FAILED else blame.Blame.UNPROVEN)


@pytest.mark.parametrize(
    ("one_of", "other", "related"),
    [
        (("a", "x"), ("a", "y"), True),
        (("a", "x"), ("b", "x"), True),
        (("a", "x"), ("b", "y"), False),
        (("", "x"), ("", "y"), False),
        (("", "x"), ("b", "y"), False),
        (("", "x"), ("", "x"), True),
    ],
)
def test_tasks_are_unrelated_when_both_address_and_image_differ(
    one_of: tuple[str, str], other: tuple[str, str], *, related: bool
) -> None:
    assert blame.are_related(blame.Origin(*one_of), blame.Origin(*other)) is related


# ---- nodes ----


@pytest.mark.parametrize("check", [CHECK.PASSED, CHECK.NOT_DONE, CHECK.NOT_NEEDED])
async def test_eight_bad_tasks_of_one_author_make_no_node_rest_and_end(
    kept: store.Store, clock: Clock, check: outcome.NodeCheck
) -> None:
    await kept.submit([_of("author", f"image {number % 3}", f"bad{number}") for number in range(8)])
    here = await session(kept)
    given = 0
    while any(not found.ended for found in await kept.find(records.Filter())):
        if not (found := await poll(kept, "n", here)).tasks:
            clock.seconds += found.again_in + 0.01
            continue
        given += 1
        report = ended(found.tasks[0], "n", here, outcome.Status.FAILED, NODE_FAULTS[given % 3])
        await kept.report(dataclasses.replace(report, node_check=check))
        assert await _rests(kept) == 0
    bad = [await one(kept, f"bad{number}") for number in range(8)]
    assert {(found.state, found.attempt) for found in bad} == {(state.TaskState.FAILED, 3)}
    await kept.submit([_of("other", "image 0", "good")])
    assert (await take(kept, "n", here)).task_id == "good", "another's task of the same shape, given out at once"


async def test_a_task_that_fails_unproven_goes_to_another_node_first(kept: store.Store, clock: Clock) -> None:
    await kept.submit([_of("author", "image", "bad")])
    first, second = await session(kept, "first"), await session(kept, "second")
    await _fails(kept, "first", first, check=CHECK.PASSED)
    held_back = await poll(kept, "first", first)
    assert (held_back.tasks, held_back.again_in) == ((), 1.0)
    assert (await take(kept, "second", second)).task_id == "bad"


async def test_what_was_held_back_from_the_only_node_comes_again(kept: store.Store, clock: Clock) -> None:
    await kept.submit([_of("author", "image", "bad"), _of("other", "image", "good")])
    here = await session(kept)
    assert await _fails(kept, "n", here) == "bad"
    good = await take(kept, "n", here)
    assert good.task_id == "good"
    await kept.report(ended(good, "n", here, outcome.Status.FAILED, outcome.Reason.TIMEOUT))
    clock.seconds += 1.01
    again = await take(kept, "n", here)
    assert (again.task_id, again.attempt) == ("bad", 2)
    await kept.report(ended(again, "n", here))
    (shown,) = await kept.nodes()
    assert shown.shape_rests == {}, "it has come to a good end there"


async def test_unrelated_tasks_that_fail_make_a_node_rest(kept: store.Store, clock: Clock) -> None:
    await kept.submit([_of("one", "image 1"), _of("two", "image 2"), _of("three", "image 3")])
    here = await session(kept)
    await _fails(kept, "n", here, check=CHECK.PASSED)
    assert await _rests(kept) == 0
    clock.seconds += 0.1
    await _fails(kept, "n", here, outcome.Reason.WORKER_CRASH)
    assert await _rests(kept) == 1.0
    clock.seconds += 1.1
    await _fails(kept, "n", here)
    assert await _rests(kept) == 4.0


async def test_a_good_end_between_clears_a_node(kept: store.Store, clock: Clock) -> None:
    await kept.submit([_of("one", "image 1"), _of("one", "image 1"), _of("two", "image 2")])
    here = await session(kept)
    await _fails(kept, "n", here)
    await kept.report(ended(await take(kept, "n", here), "n", here))
    await _fails(kept, "n", here)
    assert await _rests(kept) == 0


async def test_a_node_that_finds_itself_sick_rests_at_once(kept: store.Store) -> None:
    await kept.submit([_of("one", "image 1")])
    here = await session(kept)
    await _fails(kept, "n", here, check=CHECK.FAILED)
    assert await _rests(kept) == 1.0
    (queued,) = await kept.find(records.Filter())
    assert queued.shape == SMALL, "the task is no suspect"


async def test_a_suspect_that_is_submitted_anew_is_none(kept: store.Store, clock: Clock) -> None:
    await kept.submit([_of("author", "image", "bad")])
    here = await session(kept)
    await _fails(kept, "n", here)
    assert (await one(kept, "bad")).shape == dataclasses.replace(SMALL, suspect_image="image")
    await kept.cancel(["bad"])
    (new,) = await kept.retry(["bad"], "")
    assert (await one(kept, new)).shape == SMALL


# ---- tasks ----


async def test_a_task_that_takes_ten_nodes_down_is_given_up(kept: store.Store, clock: Clock) -> None:
    await kept.submit([_of("author", "image", "poison", attempts=50)])
    for number in range(moves.MAX_CRASHED_NODES):
        name = f"n{number}"
        here = await session(kept, name)
        await take(kept, name, here)
        clock.seconds += LEASE + 1
        await kept.expire()
    found = await one(kept, "poison")
    assert (found.state, found.reason, found.attempt) == (state.TaskState.FAILED, "worker_crash", 10)
    assert "the workers of 10 different nodes were lost with it, so look into the task" in found.error


async def test_losses_of_one_node_and_orderly_stops_are_not_counted_as_other_nodes(
    kept: store.Store, clock: Clock
) -> None:
    await kept.submit([_of("author", "image", "unlucky", attempts=30)])
    for number in range(12):
        here = await session(kept, "n", f"boot {number}")
        await take(kept, "n", here)
        clock.seconds += LEASE + 1
        await kept.expire()
    assert (await one(kept, "unlucky")).state is state.TaskState.QUEUED
