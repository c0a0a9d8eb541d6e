"""No reason that a capsule gives is believed without the worker's or the kernel's own word."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import evidence, session_result, verdict
from hivemind_worker.runtime.capsule import accounts, messages
from hivemind_worker.tasks import outcome

Reason = outcome.Reason
Why = messages.Why
StopLevel = stopping.StopLevel
SETTING = verdict.Setting("docker", "runc", "sha256:x", outcome.Limits(64 << 20, 100_000, 10.0, 1 << 20, 16))
DONE = messages.Done(files=0, content_bytes=0)


def heard(why: Why, elapsed: float = 2.0, *, status: int | None = None, **more: object) -> session_result.SessionResult:
    signal = 15 if status is None else None
    exited = messages.Exited(status=status, signal=signal, why=why, wall_us=2_000_000)
    found = session_result.SessionResult(exited=exited, done=DONE, started=True, elapsed_seconds=elapsed)
    return dataclasses.replace(found, **more)  # type: ignore[arg-type]


def judge(
    said: session_result.SessionResult, counted: accounts.Reading | None = None, level: StopLevel = StopLevel.RUN
) -> outcome.Outcome:
    stop = stopping.Stop()
    if level > StopLevel.RUN:
        stop.request(level, "the submitter wished it")
    return verdict.judge(SETTING, said, stop, counted or accounts.Reading(), {})


def test_every_reason_and_every_claim_has_its_row() -> None:
    assert set(evidence.EVIDENCE) == set(Reason)
    assert set(evidence.CLAIMS) == set(Why)


@pytest.mark.parametrize("why", [Why.STOP, Why.TIMEOUT, Why.DISCONNECT])
def test_a_claim_without_evidence_is_the_tasks_own_end(why: Why) -> None:
    found = judge(heard(why))
    assert (found.status, found.reason, found.exit_code) == (outcome.Status.FAILED, Reason.NONZERO_EXIT, 143)
    assert "no evidence" in found.error
    assert "timeout" not in found.limits_hit
    assert judge(heard(why, status=3)).reason is Reason.NONZERO_EXIT
    assert judge(heard(why, status=0)).status is outcome.Status.COMPLETED


@pytest.mark.parametrize(
    ("said", "level", "reason"),
    [
        (heard(Why.STOP), StopLevel.CANCEL, Reason.CANCELLED),
        (heard(Why.STOP), StopLevel.DRAIN, Reason.NODE_SHUTDOWN),
        (heard(Why.STOP, reattached=True), StopLevel.RUN, Reason.NODE_SHUTDOWN),
        (heard(Why.TIMEOUT, 9.9), StopLevel.RUN, Reason.TIMEOUT),
        (heard(Why.TIMEOUT, elapsed_seconds=None), StopLevel.RUN, Reason.TIMEOUT),
        (heard(Why.TIMEOUT, 9.5), StopLevel.RUN, Reason.NONZERO_EXIT),
    ],
)
def test_a_claim_with_evidence_is_believed(
    said: session_result.SessionResult, level: StopLevel, reason: Reason
) -> None:
    found = judge(said, level=level)
    assert found.reason is reason
    assert "no evidence" not in found.error or reason is Reason.NONZERO_EXIT


def test_memory_is_the_tasks_only_where_its_own_limit_refused_it() -> None:
    own = heard(Why.OWN, status=137)
    found = judge(own, accounts.Reading(memory_kills=1, limit_hits=0, peak_memory_bytes=20 << 20))
    assert found.reason is Reason.INTERNAL
    assert "this machine" in found.error
    assert found.limits_hit == ()
    for hits, peak in ((3, 20), (None, 20), (0, 64), (0, None)):
        counted = accounts.Reading(memory_kills=1, limit_hits=hits, peak_memory_bytes=peak and peak << 20)
        assert judge(own, counted).reason is Reason.OOM
    assert judge(own, accounts.Reading(memory_kills=0, limit_hits=9)).reason is Reason.NONZERO_EXIT


def test_what_a_capsule_says_of_inputs_counts_before_the_start_alone() -> None:
    late = session_result.SessionResult(refused_file="cannot write: No space left on device", fault="x", started=True)
    assert judge(late).reason is Reason.INTERNAL
    assert judge(dataclasses.replace(late, started=False)).reason is Reason.DISK_LIMIT


def test_no_run_is_longer_than_it_was_by_our_clock() -> None:
    said = heard(Why.OWN, status=0)
    assert said.exited is not None
    long = dataclasses.replace(said.exited, wall_us=10**15)
    assert judge(dataclasses.replace(said, exited=long)).usage.wall_seconds == 2.0


@pytest.mark.parametrize(
    ("files", "hits"),
    [
        ({"memory/memory.failcnt": "2", "memory/memory.memsw.failcnt": "3"}, 5),
        ({"memory/memory.failcnt": "0"}, 0),
        ({"memory.events": "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n"}, 7),
        ({}, None),
    ],
)
def test_limit_hits_are_read_of_both_versions(files: dict[str, str], hits: int | None) -> None:
    found = accounts.read(lambda controller, name: files.get(str(Path(controller) / name)))
    assert found.limit_hits == hits
