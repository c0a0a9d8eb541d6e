"""When a pool or worker of a chaos run waited for a core, by the kernel's account, and how much of it loses leases.

That is evidence from beside the product: a process that computes too much itself, or waits for a lock or a disk, is not
runnable without a core meanwhile, and is not excused.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from pathlib import Path

POOL = "pool"


@dataclasses.dataclass
class Span:
    """From when to when (monotonic seconds) a service lacked a core."""

    who: str
    begin: float
    end: float


def waited_seconds(pid: int) -> float:
    """How long a process's first thread, which has its event loop, has been runnable without a core.

    The second field of ``schedstat``, see `Documentation/scheduler/sched-stats.rst` of the kernel. 0 where that, or the
    process, is not there.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except OSError:
        return 0.0


class Starvation:
    """Finds the leases of which a node and the pool waited for a core more than half: no heartbeat need come through.

    Between two heartbeats lies a quarter of a lease; each, and its answer, needs both in turn.
    """

    def __init__(self, lease_seconds: float) -> None:
        """Begin to look."""
        self.spans: list[Span] = []
        self._lease_seconds = lease_seconds
        self._samples: dict[str, collections.deque[tuple[float, int, float]]] = {}

    def look(self, now: float, waited: Mapping[str, tuple[int, float]]) -> None:
        """Take in the process number and the waited seconds of each service, by name."""
        spent = {who: self._spent(who, now, *each) for who, each in waited.items()}
        for who, seconds in spent.items():
            together = seconds if who == POOL else seconds + spent.get(POOL, 0.0)
            if together > self._lease_seconds / 2:
                self._add(Span(who, now - self._lease_seconds, now))

    def _spent(self, who: str, now: float, pid: int, seconds: float) -> float:
        """What of the last lease it waited, since its start at most."""
        samples = self._samples.setdefault(who, collections.deque())
        if samples and samples[-1][1] != pid:
            samples.clear()
        samples.append((now, pid, seconds))
        while samples[0][0] < now - self._lease_seconds:
            samples.popleft()
        return seconds - samples[0][2]

    def _add(self, span: Span) -> None:
        last = next((each for each in reversed(self.spans) if each.who == span.who), None)
        if last is not None and span.begin <= last.end:
            last.end = span.end
        else:
            self.spans.append(span)
