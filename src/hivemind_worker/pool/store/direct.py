"""When the loop commits by itself instead of handing a request to the thread that writes.

Theory of operation. The way to the writer's thread and back wakes a thread on either side. So a brief request that
finds the writer idle is done by the loop itself, on the same connection. What the loop must not do is wait: a slow disk
would stop every other call with it. So it commits only where commits were quick of late and none was made within
`QUIET_SECONDS`; whoever comes faster than that goes to the thread, where those who come meanwhile share its next
commit.

SQLite brings its log into the file within a commit, which takes tens of milliseconds and more. Only the thread lets it,
in its own commits and after every `MAX_COMMITS` of the loop.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from hivemind_worker.pool.store import records

QUIET_SECONDS = 0.001
"""How long nothing was committed before the loop commits: about two commits' time on a solid-state disk."""

MAX_COMMIT_SECONDS = 0.003
"""The slowest commit of late with which the loop still commits: so long a call may be held up by another's."""

DECAY = 0.9
"""What is left of the slowest commit with each one after it: one of 50 ms keeps the loop away for 27 commits."""

MAX_COMMITS = 128
"""Commits of the loop before the thread brings the log into the file: at some 15 pages each, half of what the log has
when the thread's own commits do it."""

MAX_BRIEF_BYTES = 64 * 1024
"""The largest task or result that is brief: it is written in less than a millisecond."""

MAX_BRIEF_HELD = 64
"""Most attempts that a brief poll lists; each is looked up."""


class Direct:
    """Counts what was committed, and says whether the loop may do the next one."""

    def __init__(self) -> None:
        self._outstanding = 0
        self._idle_since = 0.0
        self._slowest = 0.0
        self._commits = 0

    def is_allowed(self) -> bool:
        """Whether the loop may commit now: the thread has nothing to do, and the disk is quick."""
        return may_commit(self._outstanding, time.monotonic() - self._idle_since, self._slowest, self._commits)

    def handed_over(self) -> None:
        """A request was given to the thread, which has the connection until it is answered."""
        self._outstanding += 1

    def answered(self, count: int) -> None:
        """So many requests were answered by the thread."""
        self._outstanding -= count
        self._idle_since = time.monotonic()

    def done(self, seconds: float) -> None:
        """The loop has done a request by itself, in so many seconds from its first statement on, well or not."""
        self._commits += 1
        self.committed(seconds)
        self._idle_since = time.monotonic()

    def committed(self, seconds: float) -> None:
        """A commit took so long, on whichever thread."""
        self._slowest = max(seconds, self._slowest * DECAY)

    def take_turn(self) -> bool:
        """Whether it is the thread's turn to bring the log into the file; then the loop may commit again."""
        is_due = self._commits >= MAX_COMMITS
        if is_due:
            self._commits = 0
        return is_due


def may_commit(outstanding: int, idle_seconds: float, slowest_seconds: float, commits: int) -> bool:
    """Whether the loop may commit by itself. Pure.

    ``outstanding``: requests that the thread has; ``idle_seconds`` since the last commit; ``slowest_seconds``: of
    commits of late; ``commits``: of the loop since the thread last brought the log into the file.
    """
    return (
        not outstanding
        and idle_seconds >= QUIET_SECONDS
        and slowest_seconds <= MAX_COMMIT_SECONDS
        and commits < MAX_COMMITS
    )


def is_brief_submission(tasks: Sequence[records.NewTask]) -> bool:
    """Whether it is one task, which is kept in about a millisecond. Pure."""
    return len(tasks) == 1 and len(tasks[0].body) <= MAX_BRIEF_BYTES


def is_brief_question(polls: Sequence[records.Poll]) -> bool:
    """Whether it is one poll, which is answered in about a millisecond. Pure."""
    return len(polls) == 1 and len(polls[0].held) <= MAX_BRIEF_HELD
