"""The checker's own proof: a sound run passes, and a violation of each invariant that is planted in it is caught."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import history
import invariants
import pytest

from hivemind_worker import units
from hivemind_worker.tasks import resources

GIB = units.GIB
SUM = "ab" * 32


def _event(at: float, event: str, attempt: int = 0, node_id: str = "") -> history.Event:
    return history.Event(at, event, attempt, node_id)


def _report(attempt: int, node_id: str, status: str = "completed", reason: str = "") -> history.Report:
    return history.Report(
        attempt,
        "accepted",
        node_id,
        status,
        reason,
        exit_code=0,
        files={"out": SUM},
        stdout_bytes=5,
        logs="done\n",
    )


def sound() -> history.History:
    """Two tasks: one lost its first attempt with its worker, the other was told off by its node and tried again."""
    moved = history.Task(
        "moved", "completed", 2, 3, 2, "",
        (
            _event(0, "submit"), _event(1, "assign", 1, "a"), _event(2, "start", 1, "a"), _event(10, "requeue", 1, "a"),
            _event(11, "assign", 2, "b"), _event(14, "complete", 2, "b"), _event(15, "stale_report", 2, "a"),
        ),
        (dataclasses.replace(_report(1, "a"), verdict="stale"), _report(2, "b")),
        resources.Resources(1, GIB),
    )  # fmt: skip
    again = history.Task(
        "again", "completed", 2, 3, 2, "",
        (
            _event(0, "submit"), _event(1, "assign", 1, "b"), _event(3, "requeue", 1, "b"),
            _event(4, "assign", 2, "b"), _event(5, "requeue", 2, "b"), _event(6, "assign", 2, "b"),
            _event(9, "complete", 2, "b"),
        ),
        (_report(1, "b", "failed", "engine_lost"), _report(2, "b")),
        resources.Resources(1, GIB),
    )  # fmt: skip
    wanted = history.Expected(files={"out": SUM}, stdout_bytes=5, logs="done\n")
    return history.History(
        expected={"moved": wanted, "again": wanted},
        tasks=(moved, again),
        lease_seconds=2.0,
        grace_seconds=1.0,
        sightings=(
            history.Sighting(2.0, "moved", "a1", "a"),
            history.Sighting(25.0, "moved", "a1", "a"),  # long after, but nobody was there to end it
            history.Sighting(12.0, "moved", "b1", "b"),
            history.Sighting(8.0, "again", "b2", "b"),
        ),
        absences=(history.Absence("a", 9.0, 24.0),),
        rooms={"a": history.Room(resources.Resources(2, 2 * GIB), 2), "b": history.Room(resources.Resources(1, GIB))},
        stored=frozenset({SUM}),
    )


Change = Callable[[history.History], history.History]


def _restored(run: history.History) -> history.History:
    """As `sound`, after a restore: a retry from before it, whose id no client chose, may be there, and is."""
    expected = {name: each for name, each in run.expected.items() if name != "moved"}
    return dataclasses.replace(run, expected=expected, may_be_there={"moved": run.expected["moved"]})


def _task(run: history.History, **changes: object) -> history.History:
    first, *others = run.tasks
    return dataclasses.replace(run, tasks=(dataclasses.replace(first, **changes), *others))  # type: ignore[arg-type]


def _events(*more: history.Event, keep: int = 6) -> Change:
    return lambda run: _task(run, events=(*run.tasks[0].events[:keep], *more))


def _result(**changes: object) -> Change:
    def change(run: history.History) -> history.History:
        stale, accepted = run.tasks[0].reports
        return _task(run, reports=(stale, dataclasses.replace(accepted, **changes)))  # type: ignore[arg-type]

    return change


def _seen(*more: history.Sighting) -> Change:
    return lambda run: dataclasses.replace(run, sightings=(*run.sightings, *more))


def _in_second_epoch(*more: history.Sighting, epoch_at: float = 50.0) -> Change:
    """Two capsules ran when the store was wiped or restored; node a was away for some time from then on."""
    first = (history.Sighting(epoch_at - 1, "earlier.0", capsule, "b") for capsule in ("e1", "e2"))
    away = history.Absence("a", epoch_at, epoch_at + 10)

    def change(run: history.History) -> history.History:
        sightings, absences = (*run.sightings, *first, *more), (*run.absences, away)
        return dataclasses.replace(run, sightings=sightings, absences=absences, epoch_at=epoch_at)

    return change


def _ended(state: str, reason: str = "", **changes: object) -> Change:
    move = {"completed": "complete", "failed": "fail", "cancelled": "cancel"}[state]

    def change(run: history.History) -> history.History:
        stale, accepted = run.tasks[0].reports
        reports = (stale, dataclasses.replace(accepted, status=state, reason=reason))
        events = (*run.tasks[0].events[:5], _event(14, move, 2, "b"))
        return _task(run, state=state, reason=reason, events=events, reports=reports, **changes)

    return change


PLANTED: list[tuple[str, Change]] = [
    ("every_task_is_there", lambda run: dataclasses.replace(run, tasks=run.tasks[1:])),
    ("every_task_is_there", lambda run: dataclasses.replace(run, expected={"moved": run.expected["moved"]})),
    ("every_task_is_there", lambda run: _task(run, state="running", events=run.tasks[0].events[:3])),
    # A task that a restore brought back is judged as any other: it ends, as it must, with its bytes, of one execution.
    ("every_task_is_there", lambda run: _task(_restored(run), state="running", events=run.tasks[0].events[:3])),
    ("every_task_is_there", lambda run: dataclasses.replace(_restored(run), may_be_there={})),
    ("the_right_end", lambda run: _ended("failed", "timeout")(_restored(run))),
    ("the_right_bytes", lambda run: _result(stdout_bytes=4)(_restored(run))),
    ("an_attempt_runs_once", lambda run: _seen(history.Sighting(12.5, "moved", "b9", "b"))(_restored(run))),
    ("the_story_is_possible", _events(_event(16, "start", 2, "b"))),
    ("the_story_is_possible", lambda run: _task(run, state="failed")),
    ("the_story_is_possible", lambda run: _task(run, attempt=3)),
    ("the_story_is_possible", lambda run: _task(run, max_attempts=1)),
    ("the_story_is_possible", _events(_event(11, "assign", 4, "b"), _event(14, "complete", 4, "b"), keep=4)),
    ("one_attempt_one_node", _events(_event(11, "assign", 1, "b"), _event(14, "complete", 1, "b"), keep=4)),
    ("one_accepted_end", _events(_event(17, "complete", 2, "b"))),
    ("one_accepted_end", lambda run: _task(run, reports=(_report(1, "a"), _report(2, "b")))),
    ("one_accepted_end", lambda run: _task(run, result=1)),
    ("one_accepted_end", lambda run: _task(run, result=0)),
    ("one_accepted_end", lambda run: _task(run, result=0, reports=())),
    ("the_right_end", _ended("failed", "timeout")),
    ("the_right_end", _ended("failed", "worker_crash")),
    ("the_right_end", _ended("cancelled", "cancelled")),
    ("the_right_bytes", _result(exit_code=1)),
    ("the_right_bytes", _result(files={"out": "cd" * 32})),
    ("the_right_bytes", _result(files={})),
    ("the_right_bytes", _result(stdout_bytes=4)),
    ("the_right_bytes", _result(logs="dome\n")),
    ("the_right_bytes", lambda run: dataclasses.replace(run, stored=frozenset())),
    ("no_capsule_outlives_its_lease", _seen(history.Sighting(40.0, "moved", "a1", "a"))),
    ("no_capsule_outlives_its_lease", _seen(history.Sighting(3.0, "again", "a9", "a"))),
    ("no_capsule_outlives_its_lease", lambda run: dataclasses.replace(run, absences=())),
    ("no_capsule_outlives_its_lease", _in_second_epoch(history.Sighting(60.0, "moved", "n1", "a"))),
    ("no_capsule_outlives_its_epoch", _in_second_epoch(history.Sighting(58.0, "earlier.0", "e1", "b"))),
    ("no_capsule_outlives_its_epoch", _in_second_epoch(history.Sighting(68.0, "earlier.0", "e2", "a"))),
    ("no_capsule_outlives_its_epoch", _in_second_epoch(history.Sighting(58.0, "earlier.0", "begun later", "b"))),
    ("an_attempt_runs_once", _in_second_epoch(history.Sighting(12.5, "moved", "b9", "b"), epoch_at=0.0)),
    ("reserved_within_capacity",
     _in_second_epoch(*(history.Sighting(51.0, "earlier.0", capsule, "a") for capsule in ("e1", "e2", "e3")))),
    ("an_attempt_runs_once", _seen(history.Sighting(12.5, "moved", "b9", "b"))),
    ("reserved_within_capacity", _seen(history.Sighting(8.0, "moved", "b1", "b"))),
    ("reserved_within_capacity",
     _seen(*(history.Sighting(2.0, "moved", capsule, "a") for capsule in ("a2", "a3")))),
    ("nothing_is_left", lambda run: dataclasses.replace(run, left=("container 0123456789ab",))),
]  # fmt: skip


def test_a_sound_run_has_no_violation() -> None:
    assert invariants.check(sound()) == []


@pytest.mark.parametrize(("invariant", "change"), PLANTED)
def test_a_planted_violation_is_caught(invariant: str, change: Change) -> None:
    assert invariant in {found.invariant for found in invariants.check(change(sound()))}


def test_every_invariant_has_a_planted_violation() -> None:
    assert {invariant for invariant, _ in PLANTED} == set(invariants.INVARIANTS)


def test_what_ran_for_an_earlier_store_has_the_time_that_its_node_needs_to_hear_of_it() -> None:
    roomy = dataclasses.replace(sound(), rooms={})
    for seen in (history.Sighting(54.0, "earlier.0", "e1", "b"), history.Sighting(64.0, "earlier.0", "e2", "a")):
        assert invariants.check(_in_second_epoch(seen)(roomy)) == []


def test_a_retry_from_before_a_restore_may_be_there_and_need_not() -> None:
    assert invariants.check(_restored(sound())) == []
    assert invariants.check(dataclasses.replace(_restored(sound()), tasks=sound().tasks[1:], sightings=())) == []


def test_what_the_submitter_asked_for_and_what_was_tried_to_the_end_are_no_violations() -> None:
    asked = dataclasses.replace(sound().expected["moved"], may_be_cancelled=True)
    cancelled = dataclasses.replace(
        _ended("cancelled", "cancelled")(sound()), expected={**sound().expected, "moved": asked}
    )
    assert invariants.check(cancelled) == []
    assert invariants.check(_ended("failed", "worker_crash", max_attempts=2)(sound())) == []


def test_a_violation_names_the_promise_the_task_and_what_happened() -> None:
    (found,) = invariants.check(dataclasses.replace(sound(), left=("/run/x",)))
    assert str(found) == "nothing_is_left: this machine: left behind: /run/x"
