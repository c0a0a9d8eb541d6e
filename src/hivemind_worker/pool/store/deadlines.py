"""How long a node may have an attempt in all: its time limit and what comes before and after the run. Pure."""

from __future__ import annotations

PREPARE_SECONDS = 6 * 3600.0
"""From being handed out to the start: 5 min in which the node waits for room (the reference's number), an hour for the
image (`pull_timeout`) and half an hour for each package source that is asked, by their defaults 2 h; three times that,
because a node's owner may set more."""

REPORT_SECONDS = 24 * 3600.0
"""From the end of the run to the report: the 4 GiB of `results_limit_bytes` over the slowest line that a worker puts up
with, 64 KiB/s, take 18.2 h; the rest is for the results that are delivered before them."""

UNNAMED_TIMEOUT = 7 * 86_400.0
"""The run of a task that names no time limit: then the node's own `task_timeout` is in force, which the pool does not
know. A task that shall run for longer than a week names its limit."""

REFERENCE_TIMEOUT = 3600.0
"""The reference document's TASK_TIMEOUT, which a client without sessions applies to a task that names none."""


def seconds(timeout: float, *, with_session: bool, lease_seconds: float) -> float:
    """Return for how many seconds of the lease clock a node may have an attempt.

    ``timeout`` is the task's own limit in seconds, 0 where it names none. A client without a session cannot say what it
    holds, so that a lost answer or report shows by the time alone: it has one lease beyond the time limit.
    """
    if not with_session:
        return (timeout or REFERENCE_TIMEOUT) + lease_seconds
    return (timeout or UNNAMED_TIMEOUT) + PREPARE_SECONDS + REPORT_SECONDS


def words(timeout: float, *, with_session: bool, lease_seconds: float) -> str:
    """Say how long that was, and what a submitter can do about it."""
    whole = seconds(timeout, with_session=with_session, lease_seconds=lease_seconds)
    limit = f"its timeout of {timeout:g} s" if timeout else "no timeout of its own"
    return f"no end of it was reported within {whole:.0f} s of its being handed out ({limit})"
