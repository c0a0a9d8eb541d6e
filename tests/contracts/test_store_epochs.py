"""The identity of an attempt: the store's epoch, the task, the attempt, and the one run of it that counts."""

from __future__ import annotations

import dataclasses
import re

import pytest
import store_parts

from hivemind_worker import errors
from hivemind_worker.pool.store import records, store
from hivemind_worker.tasks import outcome, state

OTHER = "f" * 32


@pytest.fixture
async def given(kept: store.Store) -> tuple[str, records.Handed]:
    """A session, and the attempt that it was assigned."""
    await kept.submit([store_parts.task("a")])
    session = await store_parts.session(kept)
    return session, await store_parts.take(kept, "n", session)


def ref(**fields: str) -> records.Ref:
    return records.Ref("a", 1, **fields)


async def test_the_epoch_is_the_stores_own_and_outlives_its_restarts(
    opener: store_parts.Opener, tmp_path_factory: pytest.TempPathFactory
) -> None:
    epochs = []
    for _ in range(2):
        opened = opener()
        await opened.open()
        epochs.append(opened.epoch)
        await opened.close()
    assert epochs[0] == epochs[1]
    assert re.fullmatch("[0-9a-f]{32}", epochs[0])


async def test_an_assignment_is_on_record(kept: store.Store, given: tuple[str, records.Handed]) -> None:
    assert await kept.assignment("a", 1) == records.Assignment(kept.epoch, "n")
    assert await kept.assignment("a", 2) is None
    with pytest.raises(errors.NoSuchTask):
        await kept.assignment("b", 1)


@pytest.mark.parametrize("status", [None, outcome.Status.COMPLETED])
async def test_a_report_of_another_epoch_changes_nothing(
    kept: store.Store, given: tuple[str, records.Handed], status: outcome.Status | None
) -> None:
    session, handed = given
    report = dataclasses.replace(store_parts.ended(handed, "n", session), status=status, epoch=OTHER)
    before = await store_parts.one(kept, "a")
    assert (await kept.report(report)).verdict is records.Verdict.UNKNOWN
    assert await store_parts.one(kept, "a") == before
    mine = dataclasses.replace(report, epoch=kept.epoch)
    assert (await kept.report(mine)).verdict is records.Verdict.ACCEPTED


@pytest.mark.parametrize("call", ["register", "heartbeat"])
async def test_an_attempt_of_another_epoch_is_dropped_and_counts_as_not_listed(
    kept: store.Store, given: tuple[str, records.Handed], clock: store_parts.Clock, call: str
) -> None:
    session, _ = given
    foreign = ref(epoch=OTHER)
    if call == "register":
        opened = await kept.register(store_parts.node("n", "boot 2"), [foreign])
        assert opened.drop == (foreign,)
    else:
        clock.seconds += store_parts.LEASE + 1
        assert (await kept.heartbeat(records.Beat("n", session, held=(foreign,)))).drop == (foreign,)
    assert (await store_parts.one(kept, "a")).state is state.TaskState.QUEUED


async def test_an_attempt_without_an_epoch_is_taken_for_this_ones(
    kept: store.Store, given: tuple[str, records.Handed]
) -> None:
    session, handed = given
    assert not (await kept.heartbeat(records.Beat("n", session, held=(ref(), ref(epoch=kept.epoch))))).drop
    assert (await kept.report(store_parts.ended(handed, "n", session))).verdict is records.Verdict.ACCEPTED


@pytest.mark.parametrize("first", ["start", "heartbeat", "register", "output"])
async def test_an_attempt_is_bound_to_the_first_run_that_is_seen(
    kept: store.Store, given: tuple[str, records.Handed], first: str
) -> None:
    session, handed = given
    end = dataclasses.replace(store_parts.ended(handed, "n", session), run_id="run 1")
    match first:
        case "start":
            await kept.report(dataclasses.replace(end, status=None))
        case "heartbeat":
            assert not (await kept.heartbeat(records.Beat("n", session, held=(ref(run_id="run 1"),)))).drop
        case "register":
            assert not (await kept.register(store_parts.node(), [ref(run_id="run 1")])).drop
        case _:
            assert (await kept.accept_output("n", session, ref(run_id="run 1"))).run_id == "run 1"
    bound = await kept.assignment("a", 1)
    assert bound is not None
    assert bound.run_id == "run 1"
    for other in ("run 2", ""):
        for status in (None, outcome.Status.COMPLETED):
            answer = await kept.report(dataclasses.replace(end, status=status, run_id=other, body=b"another run's"))
            assert answer.verdict is records.Verdict.STALE
    with pytest.raises(errors.Rejected, match="another run"):
        await kept.accept_output("n", session, ref(run_id="run 2"))
    assert (await kept.heartbeat(records.Beat("n", session, held=(ref(run_id="run 2"),)))).drop
    assert not (await kept.heartbeat(records.Beat("n", session, held=(ref(run_id="run 1"),)))).drop
    assert (await kept.report(end)).verdict is records.Verdict.ACCEPTED
    assert (await kept.report(end)).verdict is records.Verdict.DUPLICATE
    assert (await store_parts.one(kept, "a")).result == end.body


async def test_a_new_process_with_another_run_does_not_go_on_with_the_attempt(
    kept: store.Store, given: tuple[str, records.Handed]
) -> None:
    session, handed = given
    started = dataclasses.replace(store_parts.ended(handed, "n", session), status=None, run_id="run 1")
    await kept.report(started)
    opened = await kept.register(store_parts.node("n", "boot 2"), [ref(run_id="run 2")])
    assert [each.run_id for each in opened.drop] == ["run 2"]
    task = await store_parts.one(kept, "a")
    assert task.state is state.TaskState.QUEUED
    again = await store_parts.take(kept, "n", opened.session_id)
    assert again.attempt == 2
    assert await kept.assignment("a", 2) == records.Assignment(kept.epoch, "n")


async def test_nobody_binds_an_attempt_that_is_not_its_own(
    kept: store.Store, given: tuple[str, records.Handed]
) -> None:
    other = await store_parts.session(kept, "m", "boot", ref(run_id="run 2"))
    await kept.heartbeat(records.Beat("m", other, held=(ref(run_id="run 2"),)))
    stolen = dataclasses.replace(store_parts.ended(given[1], "m", other), run_id="run 2")
    assert (await kept.report(stolen)).verdict is records.Verdict.STALE
    with pytest.raises(errors.Rejected, match="is not m's"):
        await kept.accept_output("m", other, ref(run_id="run 2"))
    assert await kept.assignment("a", 1) == records.Assignment(kept.epoch, "n")


async def test_output_is_refused_of_another_epoch_and_of_what_was_never_assigned(
    kept: store.Store, given: tuple[str, records.Handed]
) -> None:
    session, _ = given
    with pytest.raises(errors.Rejected, match="epoch"):
        await kept.accept_output("n", session, ref(epoch=OTHER, run_id="run 1"))
    with pytest.raises(errors.UserError, match="never handed out"):
        await kept.accept_output("n", session, records.Ref("a", 2))
    with pytest.raises(errors.NoSuchTask):
        await kept.accept_output("n", session, records.Ref("b", 1))
    with pytest.raises(errors.UnknownNode):
        await kept.accept_output("n", "no such session", ref())
    assert await kept.accept_output("n", session, ref()) == records.Assignment(kept.epoch, "n")
