"""The one reason of every ending, and that no exit code alone ever means `out of memory`."""

from __future__ import annotations

import dataclasses

import pytest

from hivemind_worker import errors
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import session_result, verdict
from hivemind_worker.runtime.capsule import accounts, messages
from hivemind_worker.tasks import outcome

SETTING = verdict.Setting("docker", "runc", "sha256:x", outcome.Limits(64 << 20, 100_000, 10.0, 1 << 20, 16))
DONE = messages.Done(files=0, content_bytes=0)
OWN = messages.Exited(status=0, signal=None, why=messages.Why.OWN, wall_us=2_000_000, utime_us=500_000)
Reason = outcome.Reason


def exited(**more: object) -> messages.Exited:
    return dataclasses.replace(OWN, **more)  # type: ignore[arg-type]


def judge(
    heard: session_result.SessionResult, counted: accounts.Reading | None = None, stop: stopping.Stop | None = None
) -> outcome.Outcome:
    return verdict.judge(SETTING, heard, stop or stopping.Stop(), counted or accounts.Reading(), {"create": 0.1})


@pytest.mark.parametrize(
    ("heard", "reason"),
    [
        (session_result.SessionResult(exited=OWN, done=DONE), None),
        (session_result.SessionResult(exited=exited(status=137), done=DONE), Reason.NONZERO_EXIT),
        (session_result.SessionResult(exited=exited(status=None, signal=9), done=DONE), Reason.NONZERO_EXIT),
        (
            session_result.SessionResult(exited=exited(status=None, signal=15, why=messages.Why.TIMEOUT), done=DONE),
            Reason.TIMEOUT,
        ),
        (session_result.SessionResult(exited=exited(status=0, why=messages.Why.TIMEOUT), done=DONE), Reason.TIMEOUT),
        (session_result.SessionResult(exited=OWN, fault="it lied"), Reason.RESULTS_REJECTED),
        (
            session_result.SessionResult(exited=OWN, done=dataclasses.replace(DONE, error="a link")),
            Reason.RESULTS_REJECTED,
        ),
        (session_result.SessionResult(exited=OWN, cut=True, fault="it was killed"), Reason.INTERNAL),
        (session_result.SessionResult(exited=OWN, cut=True, lost=True, fault="broke"), Reason.ENGINE_LOST),
        (session_result.SessionResult(exited=OWN, lost=True, fault="broke"), Reason.ENGINE_LOST),
        # Killed process by process from outside: the task first, of which the capsule could still report.
        (
            session_result.SessionResult(exited=exited(status=None, signal=9), cut=True, fault="it was killed"),
            Reason.INTERNAL,
        ),
        (session_result.SessionResult(exited=exited(status=137), cut=True, fault="it was killed"), Reason.INTERNAL),
        (
            session_result.SessionResult(exited=exited(status=137), cut=True, lost=True, fault="broke"),
            Reason.ENGINE_LOST,
        ),
        (session_result.SessionResult(exited=exited(status=None, signal=9), fault="it lied"), Reason.NONZERO_EXIT),
        (session_result.SessionResult(exited=exited(status=9), cut=True, fault="it was killed"), Reason.NONZERO_EXIT),
        (session_result.SessionResult(lost=True, fault="broke"), Reason.ENGINE_LOST),
        (session_result.SessionResult(overtime=True, fault="silent"), Reason.TIMEOUT),
        (
            session_result.SessionResult(refused_file="cannot write: No space left on device", fault="x"),
            Reason.DISK_LIMIT,
        ),
        (session_result.SessionResult(refused_file="cannot create: Not a directory", fault="x"), Reason.INVALID_TASK),
        (session_result.SessionResult(over_disk="too much", stopped=True), Reason.DISK_LIMIT),
        (session_result.SessionResult(fault="it ended without a word"), Reason.INTERNAL),
    ],
)
def test_each_ending_has_its_reason(heard: session_result.SessionResult, reason: outcome.Reason | None) -> None:
    found = judge(heard)
    assert found.reason is reason
    assert (found.status is outcome.Status.COMPLETED) is (reason is None)
    assert found.error or reason is None


def test_a_capsule_that_ran_out_of_memory_while_its_results_were_read_did_so() -> None:
    heard = session_result.SessionResult(exited=OWN, cut=True, fault="it ended without a word")
    found = judge(heard, accounts.Reading(memory_kills=1, peak_memory_bytes=60 << 20))
    assert found.reason is Reason.OOM


def test_a_task_that_was_killed_for_memory_before_its_capsule_was_killed_ran_out_of_it() -> None:
    heard = session_result.SessionResult(exited=exited(status=None, signal=9), cut=True, fault="it was killed")
    assert judge(heard, accounts.Reading(memory_kills=1, peak_memory_bytes=60 << 20)).reason is Reason.OOM
    assert judge(heard, accounts.Reading(memory_kills=0, forks_refused=7)).reason is Reason.INTERNAL


def test_results_that_a_failed_task_lost_are_told() -> None:
    heard = session_result.SessionResult(exited=exited(status=3), cut=True, fault="it was killed")
    found = judge(heard)
    assert found.reason is Reason.NONZERO_EXIT
    assert found.error == "exit code 3; its results could not be taken: it was killed"


def test_the_record_of_the_kernel_makes_it_out_of_memory() -> None:
    heard = session_result.SessionResult(exited=exited(status=1), done=DONE)
    found = judge(heard, accounts.Reading(memory_kills=1, peak_memory_bytes=60 << 20))
    assert found.reason is Reason.OOM
    assert str(64 << 20) in found.error
    assert str(60 << 20) in found.error
    assert found.limits_hit == ("memory",)
    assert outcome.Flag.LIMITS_HIT in found.flags


def test_a_task_that_lived_with_it_is_completed_and_told() -> None:
    heard = session_result.SessionResult(exited=OWN, done=DONE)
    found = judge(heard, accounts.Reading(memory_kills=1, forks_refused=3))
    assert found.status is outcome.Status.COMPLETED
    assert set(found.limits_hit) == {"memory", "pids"}


def test_refused_forks_are_told_when_the_task_failed() -> None:
    heard = session_result.SessionResult(exited=exited(status=1), done=DONE)
    assert judge(heard, accounts.Reading(forks_refused=1)).reason is Reason.PIDS_LIMIT


@pytest.mark.parametrize(
    ("why", "status", "reason"),
    [
        ("the submitter cancelled", outcome.Status.CANCELLED, Reason.CANCELLED),
        ("node_shutdown: drained", outcome.Status.FAILED, Reason.NODE_SHUTDOWN),
    ],
)
def test_who_asked_to_stop_decides(why: str, status: outcome.Status, reason: outcome.Reason) -> None:
    stop = stopping.Stop()
    stop.request(stopping.StopLevel.CANCEL, why)
    endings = (
        session_result.SessionResult(stopped=True),
        session_result.SessionResult(stopped=True, exited=exited(why=messages.Why.STOP)),
        session_result.SessionResult(stopped=True, exited=OWN),
        # Killed by its control group, the task before the first process, which told of it and was killed then.
        session_result.SessionResult(stopped=True, exited=exited(status=None, signal=9), done=DONE),
        session_result.SessionResult(stopped=True, over_disk="also"),
    )
    for heard in endings:
        found = judge(heard, stop=stop)
        assert (found.status, found.reason, found.error) == (status, reason, why)
    early = verdict.stopped(SETTING, stop, {})
    assert (early.status, early.reason) == (status, reason)


def test_a_task_that_the_worker_before_this_one_stopped_is_handed_back_and_not_cancelled() -> None:
    found = judge(session_result.SessionResult(exited=exited(why=messages.Why.STOP), done=DONE, reattached=True))
    assert (found.status, found.reason) == (outcome.Status.FAILED, Reason.NODE_SHUTDOWN)
    assert "the worker before this one" in found.error


def test_a_task_that_ended_before_the_stop_was_heard_is_completed() -> None:
    stop = stopping.Stop()
    stop.request(stopping.StopLevel.CANCEL, "too late")
    assert judge(session_result.SessionResult(exited=OWN, done=DONE), stop=stop).status is outcome.Status.COMPLETED


def test_a_signal_is_128_and_more() -> None:
    found = judge(session_result.SessionResult(exited=exited(status=None, signal=11), done=DONE))
    assert (found.exit_code, found.signal) == (139, 11)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.EngineLost("gone"), Reason.ENGINE_LOST),
        (errors.ImageUnavailable("none"), Reason.IMAGE_UNAVAILABLE),
        (OSError(24, "too many open files"), Reason.INTERNAL),
    ],
)
def test_what_fails_before_the_capsule_has_its_reason(error: Exception, reason: outcome.Reason) -> None:
    assert verdict.failed(SETTING, error, {}).reason is reason


def test_a_nodes_lack_of_room_is_no_outcome_wherever_it_shows() -> None:
    building = errors.DependencyFailed("the environment cannot be kept")
    building.__cause__ = OSError(122, "Disk quota exceeded")
    broken, read_only = OSError(5, "Input/output error"), OSError(30, "Read-only file system")
    for error in (OSError(28, "No space left on device"), broken, read_only, building, errors.NoRoom("no room")):
        with pytest.raises(errors.NoRoom, match="no room"):
            verdict.failed(SETTING, error, {})


def test_usage_takes_the_larger_account() -> None:
    used = verdict.usage(
        session_result.SessionResult(exited=OWN), accounts.Reading(cpu_seconds=0.1, peak_memory_bytes=5, processes=3)
    )
    assert (used.wall_seconds, used.cpu_seconds, used.peak_memory_bytes, used.processes) == (2.0, 0.5, 5, 3)
