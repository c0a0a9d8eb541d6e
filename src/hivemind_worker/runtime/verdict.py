"""From what was heard and counted to the outcome: the status, the one reason, and what else deserves a word. Pure."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Mapping

from hivemind_worker import errors
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import evidence, session_result
from hivemind_worker.runtime.capsule import accounts, messages
from hivemind_worker.tasks import outcome

NODE_SHUTDOWN = str(outcome.Reason.NODE_SHUTDOWN)
"""A stop whose reason begins with this word was the node's own wish: the task goes to another node."""


# How the C library words ENOSPC, EFBIG and EDQUOT, which is how the capsule tells them.
_NO_ROOM = ("No space left", "File too large", "Quota exceeded", "Disk quota")


_UNPROVEN = frozenset({outcome.Reason.INTERNAL, outcome.Reason.ENGINE_LOST})
"""Reasons for which the node is blamed, although a task or its image may have caused what is seen of them."""

_BLAMES_TASK = frozenset({outcome.Reason.NONZERO_EXIT, outcome.Reason.PIDS_LIMIT})
"""What a SIGKILL alone proves nothing of."""

_UNSURE = outcome.NodeCheck.NOT_DONE
"""On an end that `node_check` is to look into."""


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """Where it ran."""

    isolation: str
    runtime: str
    image_digest: str
    limits: outcome.Limits


def judge(
    setting: Setting,
    heard: session_result.SessionResult,
    stop: stopping.Stop,
    counted: accounts.Reading,
    timings: Mapping[str, float],
) -> outcome.Outcome:
    """Say how an attempt ended that got as far as its capsule."""
    exited, done = heard.exited, heard.done
    facts = facts_of(setting, heard, stop, counted)
    status, reason, error = _ending(heard, stop, facts)
    capped = heard.results.capped or (done is not None and bool(done.capped))
    hit = [name for name, was in _limits(heard, facts, capped=capped) if was]
    flags = {
        outcome.Flag.OUTPUT_TRUNCATED: heard.truncated,
        outcome.Flag.RESULTS_TRUNCATED: capped,
        outcome.Flag.LIMITS_HIT: bool(hit),
    }
    code = None if exited is None else exited.status
    if exited is not None and exited.signal is not None:
        code = 128 + exited.signal
    if reason is outcome.Reason.OOM:
        error = (
            f"{error}; memory limit {setting.limits.memory_bytes} bytes, peak {counted.peak_memory_bytes or 'unknown'}"
        )
    return outcome.Outcome(
        status=status,
        reason=reason,
        exit_code=code,
        signal=None if exited is None else exited.signal,
        error=error,
        logs=heard.logs,
        results=heard.results.files,
        skipped=heard.results.skipped,
        flags=frozenset(flag for flag, was in flags.items() if was),
        limits_hit=tuple(hit),
        usage=usage(heard, counted),
        limits=setting.limits,
        image_digest=setting.image_digest,
        isolation=setting.isolation,
        runtime=setting.runtime,
        timings={**timings, **heard.timings},
        node_check=_UNSURE if reason in _UNPROVEN else outcome.NodeCheck.NOT_NEEDED,
    )


def facts_of(
    setting: Setting, heard: session_result.SessionResult, stop: stopping.Stop, counted: accounts.Reading
) -> evidence.Facts:
    """Put together what is known of an attempt without its capsule's word."""
    peak, limit = counted.peak_memory_bytes, setting.limits.memory_bytes
    return evidence.Facts(
        timeout=setting.limits.timeout_seconds,
        started=heard.started,
        elapsed=heard.elapsed_seconds,
        stop_level=stop.level,
        reattached=heard.reattached,
        overtime=heard.overtime,
        cut=heard.cut,
        lost=heard.lost,
        over_disk=bool(heard.over_disk),
        memory_kills=counted.memory_kills,
        limit_hits=counted.limit_hits,
        peak_share=None if peak is None or not limit else peak / limit,
        forks_refused=counted.forks_refused,
    )


def stopped(setting: Setting, stop: stopping.Stop, timings: Mapping[str, float]) -> outcome.Outcome:
    """Say how an attempt ended that was stopped before its capsule had begun."""
    status, reason, error = _stopped(stop)
    return _without_capsule(setting, status, reason, error, timings)


def failed(setting: Setting, error: BaseException, timings: Mapping[str, float]) -> outcome.Outcome:
    """Say how an attempt ended because of `error`, which is not the task's doing but for a missing image.

    Raises :class:`errors.NoRoom` where the node lacked room, a disk of its own that is full or broken included: it
    hands the task back.
    """
    if isinstance(error, errors.NoRoom):
        raise error
    if errors.is_disk_fault(error):
        raise errors.NoRoom(f"no room on this node: {error}") from error
    reason = outcome.Reason.INTERNAL
    if isinstance(error, errors.EngineLost):
        reason = outcome.Reason.ENGINE_LOST
    elif isinstance(error, errors.ImageUnavailable):
        reason = outcome.Reason.IMAGE_UNAVAILABLE
    elif isinstance(error, errors.DependencyFailed):
        reason = outcome.Reason.DEPENDENCY_FAILED
    said = str(error) or type(error).__name__
    ended = _without_capsule(setting, outcome.Status.FAILED, reason, said, timings)
    if isinstance(error, errors.SpecMismatch):  # a look at the container is the evidence
        return dataclasses.replace(ended, node_check=outcome.NodeCheck.FAILED)
    is_unproven = isinstance(error, (errors.NodeFault, errors.IsolationMissing, OSError))
    return dataclasses.replace(ended, node_check=_UNSURE) if is_unproven else ended


def crashed(setting: Setting, why: str) -> outcome.Outcome:
    """Say how an attempt ended whose capsule did not outlive the worker process that had begun it."""
    return _without_capsule(setting, outcome.Status.FAILED, outcome.Reason.WORKER_CRASH, why, {})


def usage(heard: session_result.SessionResult, counted: accounts.Reading) -> outcome.Usage:
    """Put the kernel's accounts, the capsule's own and those of the way out together."""
    used = _usage(heard, counted)
    if (traffic := heard.traffic) is None:
        return used
    return dataclasses.replace(
        used,
        network_sent_bytes=traffic.sent_bytes,
        network_received_bytes=traffic.received_bytes,
        network_connections=traffic.connections,
        network_refused=traffic.refused,
    )


def _usage(heard: session_result.SessionResult, counted: accounts.Reading) -> outcome.Usage:
    """The kernel's accounts, which see every process, go before the capsule's own."""
    exited, elapsed = heard.exited, heard.elapsed_seconds
    if exited is None:
        return outcome.Usage(
            wall_seconds=elapsed or 0.0,
            cpu_seconds=counted.cpu_seconds,
            peak_memory_bytes=counted.peak_memory_bytes,
            read_bytes=counted.read_bytes,
            written_bytes=counted.written_bytes,
            processes=counted.processes,
            throttled_seconds=counted.throttled_seconds,
        )
    cpu = (exited.utime_us + exited.stime_us) / 1e6
    return outcome.Usage(
        wall_seconds=exited.wall_us / 1e6 if elapsed is None else min(exited.wall_us / 1e6, elapsed),
        cpu_seconds=max(cpu, counted.cpu_seconds or 0.0),
        # What a process had mapped may be more than its limit: pages of files that others use too are charged to them.
        peak_memory_bytes=counted.peak_memory_bytes or exited.maxrss_bytes,
        read_bytes=exited.read_bytes if counted.read_bytes is None else counted.read_bytes,
        written_bytes=exited.written_bytes if counted.written_bytes is None else counted.written_bytes,
        processes=counted.processes,
        throttled_seconds=counted.throttled_seconds,
    )


_Ending = tuple[outcome.Status, outcome.Reason | None, str]


def _ending(heard: session_result.SessionResult, stop: stopping.Stop, facts: evidence.Facts) -> _Ending:
    exited, done = heard.exited, heard.done
    if heard.over_disk and stop.level < stopping.StopLevel.CANCEL:
        return outcome.Status.FAILED, outcome.Reason.DISK_LIMIT, heard.over_disk
    if exited is None:
        return _stopped(stop) if heard.stopped else (outcome.Status.FAILED, *_broken_off(heard, facts))
    why = exited.why if evidence.credible(exited.why, facts) else messages.Why.OWN
    if why is messages.Why.STOP or _was_killed(heard) or (heard.stopped and done is None):
        return _stopped(stop)
    if why is messages.Why.TIMEOUT:
        return outcome.Status.FAILED, outcome.Reason.TIMEOUT, "the time limit was over"
    if exited.status == 0:
        error = heard.fault if done is None else done.error
        if heard.lost:
            return outcome.Status.FAILED, outcome.Reason.ENGINE_LOST, error
        if done is None or error:
            return outcome.Status.FAILED, *_without_results(error, facts)
        return outcome.Status.COMPLETED, None, ""
    reason, error = _failure(exited, facts)
    if reason in _BLAMES_TASK and done is None and facts.cut and _was_sigkill(exited):
        # By another's hand: after its own SIGKILL the capsule would have lived on.
        reason = outcome.Reason.ENGINE_LOST if facts.lost else outcome.Reason.INTERNAL
        error = f"the task's capsule was killed from outside, and the task with it: {error}"
    claim = evidence.contradiction(exited.why, facts)
    missing = f"its results could not be taken: {heard.fault}" if done is None and heard.fault else ""
    return outcome.Status.FAILED, reason, "; ".join(filter(None, (error, claim, missing)))


def _was_killed(heard: session_result.SessionResult) -> bool:
    """Whether a stop may have killed a task of whose end, and DONE, its capsule still reported.

    A capsule is killed process by process, its first one not always first. What a task makes of the death of its
    children, an exit code of 0 included, is no end of its own; an end that was reported before the stop is.
    """
    if not heard.stopped or heard.ended_first or heard.exited is None:
        return False
    return heard.killed_first or heard.exited.signal == signal.SIGKILL


def _was_sigkill(exited: messages.Exited) -> bool:
    """Whether the task died of SIGKILL, or its shell's last command did."""
    return signal.SIGKILL in {exited.signal, (exited.status or 0) - 128}


def _without_results(error: str, facts: evidence.Facts) -> tuple[outcome.Reason, str]:
    """Whose fault it is that a task ended well and its results did not come."""
    if evidence.proved(outcome.Reason.RESULTS_REJECTED, facts):
        return outcome.Reason.RESULTS_REJECTED, f"the results could not be taken: {error}"
    if evidence.proved(outcome.Reason.OOM, facts):
        return outcome.Reason.OOM, f"out of memory before the results had come: {error}"
    return outcome.Reason.INTERNAL, f"the task's capsule ended or fell silent before its results had come: {error}"


def _broken_off(heard: session_result.SessionResult, facts: evidence.Facts) -> tuple[outcome.Reason, str]:
    """Why a capsule ended that has not told of its task's end."""
    if heard.overtime:
        return outcome.Reason.TIMEOUT, "the time limit was kept from outside: the capsule no longer answered"
    if heard.lost:
        return outcome.Reason.ENGINE_LOST, heard.fault
    if evidence.proved(outcome.Reason.OOM, facts):
        return outcome.Reason.OOM, "all memory was used up, files in /tmp and in a small workspace included"
    if heard.refused_file and evidence.proved(outcome.Reason.INVALID_TASK, facts):
        if any(word in heard.refused_file for word in _NO_ROOM):
            return outcome.Reason.DISK_LIMIT, f"the inputs do not fit: {heard.refused_file}"
        return outcome.Reason.INVALID_TASK, f"an input cannot be written: {heard.refused_file}"
    return outcome.Reason.INTERNAL, heard.fault


def _failure(exited: messages.Exited, facts: evidence.Facts) -> tuple[outcome.Reason, str]:
    """Why a task failed that ended by itself: a code alone proves nothing about memory, the kernel's records do."""
    how = f"exit code {exited.status}" if exited.signal is None else f"signal {exited.signal}"
    if evidence.proved(outcome.Reason.OOM, facts):
        return outcome.Reason.OOM, f"out of memory ({how})"
    if facts.memory_kills:
        return outcome.Reason.INTERNAL, f"this machine ran out of memory, the task was not at its limit ({how})"
    if evidence.proved(outcome.Reason.PIDS_LIMIT, facts):
        return outcome.Reason.PIDS_LIMIT, f"the limit of processes was reached ({how})"
    return outcome.Reason.NONZERO_EXIT, f"{exited.error} ({how})" if exited.error else how


def _stopped(stop: stopping.Stop) -> tuple[outcome.Status, outcome.Reason, str]:
    if stop.level < stopping.StopLevel.CANCEL:
        # Its submitter may have wished it, which the pool knows; or the lease was over, or the node was to stop.
        told = "it was stopped by the worker before this one, which left no word of the reason"
        return outcome.Status.FAILED, outcome.Reason.NODE_SHUTDOWN, told
    why = stop.reason_for(stopping.StopLevel.CANCEL)
    if why.startswith(NODE_SHUTDOWN):
        return outcome.Status.FAILED, outcome.Reason.NODE_SHUTDOWN, why
    return outcome.Status.CANCELLED, outcome.Reason.CANCELLED, why


def _limits(heard: session_result.SessionResult, facts: evidence.Facts, *, capped: bool) -> list[tuple[str, bool]]:
    said = heard.exited is not None and heard.exited.why is messages.Why.TIMEOUT
    return [
        ("memory", evidence.proved(outcome.Reason.OOM, facts)),
        ("pids", evidence.proved(outcome.Reason.PIDS_LIMIT, facts)),
        ("timeout", heard.overtime or (said and evidence.proved(outcome.Reason.TIMEOUT, facts))),
        ("disk", bool(heard.over_disk) or any(word in heard.refused_file for word in _NO_ROOM)),
        ("results", capped),
        ("output", heard.truncated),
    ]


def _without_capsule(
    setting: Setting,
    status: outcome.Status,
    reason: outcome.Reason,
    error: str,
    timings: Mapping[str, float],
) -> outcome.Outcome:
    return outcome.Outcome(
        status=status,
        reason=reason,
        error=error,
        limits=setting.limits,
        image_digest=setting.image_digest,
        isolation=setting.isolation,
        runtime=setting.runtime,
        timings=timings,
    )
