"""What a chaos run cost, from its clients' history: executions, attempts, times to recover. Stdlib alone."""

from __future__ import annotations

import collections
import math
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from client_history import NODE_FAULTS, OK, UNKNOWN, History, Seen

NONCE = re.compile(r"(?:^|\n)(?:run |end )?([0-9a-f]{8}-[0-9a-f]{4})(?= |\n|$)")
NONCE_LENGTH = 13
"""Characters of a nonce: the first two groups of a UUID, 48 bits; two of 100,000 are alike once in 50,000 runs."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts of one run; times in seconds."""

    tasks: int
    calls: int
    unknown: int
    executions: int
    reexecutions: int
    wasted: int
    unexplained: int
    given_up: int
    disruptions: int
    recoveries: tuple[float, ...]
    examples: str = ""

    @property
    def text(self) -> str:
        """One figure a line."""
        rows = [
            (self.tasks, "tasks at the end, as clients see them"),
            (self.calls, "client calls"),
            (self.unknown, "client calls without a known outcome"),
            (self.executions, "executions seen"),
            (self.reexecutions, "executed again"),
            (self.wasted, "attempts wasted"),
            (self.unexplained, "attempts wasted that nothing explains"),
            (self.given_up, "tasks given up after all attempts were struck"),
            (self.disruptions, "disruptions (attempts that use up none of max_attempts)"),
            (len(self.recoveries), "recoveries"),
        ]
        lines = [f"{count:7d}  {name}" for count, name in rows]
        if self.recoveries:
            lines.append(f"{statistics.median(self.recoveries):7.1f}  seconds to recover, p50")
            lines.append(f"{max(self.recoveries):7.1f}  seconds to recover, max")
        return "\n".join(lines)


def figures(history: History) -> Figures:
    """Count it all."""
    ends = final(history)
    # After a rollback the pool knows nothing of what was executed before.
    executions: dict[tuple[str, int], set[str]] = collections.defaultdict(set)
    for execution in history.executions:
        era = sum(execution.first >= rollback.end for rollback in history.rollbacks)
        executions[execution.label, era].add(execution.nonce)
    unexplained_attempts = [(task, attempt) for task, seen in ends.items() for attempt in unexplained(history, seen)]
    return Figures(
        tasks=len(ends),
        calls=len(history.calls),
        unknown=sum(call.outcome == UNKNOWN for call in history.calls),
        executions=sum(len(nonces) for nonces in executions.values()),
        reexecutions=sum(len(nonces) - 1 for nonces in executions.values()),
        wasted=sum(wasted(seen) for seen in ends.values()),
        unexplained=len(unexplained_attempts),
        given_up=sum(seen.state == "failed" and seen.reason in NODE_FAULTS for seen in ends.values()),
        disruptions=sum(seen.disruptions for seen in ends.values()),
        recoveries=tuple(seconds for _, seconds in history.recoveries),
        examples=", ".join(f"{task} attempt {attempt}" for task, attempt in unexplained_attempts[:5]),
    )


def final(history: History) -> dict[str, Seen]:
    """The last read of each task; one with a history before one without."""
    ends: dict[str, Seen] = {}
    for task, reads in history.by_task(last_era=True).items():
        full = [seen for seen in reads if seen.call == "status"]
        ends[task] = (full or reads)[-1]
    return ends


def wasted(seen: Seen) -> int:
    """How many attempts of a task did not bring its end."""
    lost = seen.reason in NODE_FAULTS or not seen.ended
    return max(seen.attempt - (0 if lost else 1), 0)


def unexplained(history: History, seen: Seen) -> Iterator[int]:
    """Yield the wasted attempts of a task that no fault struck while they lasted, as far as reads can tell."""
    reads = [read for read in history.by_task(last_era=True)[seen.task] if read.end <= seen.end]
    nodes = {attempt: node for event, attempt, node in seen.story if event == "assign"}
    for attempt in range(1, wasted(seen) + 1):
        begin = max((read.begin for read in reads if read.attempt < attempt), default=-math.inf)
        end = min((read.end for read in reads if _over(read, attempt)), default=math.inf)
        node = nodes.get(attempt, "")
        struck = any(fault.hits(node) and fault.begin < end and fault.settled > begin for fault in history.faults)
        if not struck and not any(begin < rollback.end and end > rollback.begin for rollback in history.rollbacks):
            yield attempt


def _over(read: Seen, attempt: int) -> bool:
    return read.attempt > attempt or (read.attempt == attempt and (read.ended or read.state == "queued"))


def absence(history: History, node: str, begin: float, end: float) -> float:
    """Seconds of a span in which that node, or the pool, could not act or hear."""
    spans = sorted((max(fault.begin, begin), min(fault.settled, end)) for fault in history.faults if fault.hits(node))
    total, reached = 0.0, begin
    for first, last in spans:
        if last > reached:
            total += last - max(first, reached)
            reached = last
    return total


def outputs(value: Any) -> dict[int, list[tuple[int, str]]]:
    """Standard output of a read by attempt, as (offset, text) joined where it is contiguous; repeats are cut away."""
    attempts: dict[int, list[tuple[int, str]]] = {}
    for attempt, stream, offset, text in value:
        if stream != "stdout":
            continue
        fragments = attempts.setdefault(attempt, [])
        if fragments and fragments[-1][0] + len(fragments[-1][1]) == offset:
            fragments[-1] = (fragments[-1][0], fragments[-1][1] + text)
        else:
            fragments.append((offset, text))
    return attempts


def covered(fragments: list[tuple[int, str]]) -> int:
    """How many bytes of a stream these pieces show, each counted once."""
    total, reached = 0, 0
    for offset, text in sorted(fragments):
        end = offset + len(text)
        total += max(end - max(offset, reached), 0)
        reached = max(reached, end)
    return total


def nonce_in(text: str) -> str:
    """The nonce of the first whole line; empty where there is none."""
    match = NONCE.search(text)
    return match[1] if match else ""


def final_nonces(history: History) -> dict[str, str]:
    """The execution whose output is shown for each task's last attempt, at the end."""
    ends = final(history)
    nonces: dict[str, str] = {}
    for call in history.calls:
        last = history.era(call.begin, call.end) == len(history.rollbacks)
        if call.name == "logs" and call.outcome == OK and call.args.get("final") and last:
            seen = ends.get(call.args["task"])
            fragments = outputs(call.value).get(seen.attempt, []) if seen is not None else []
            nonce = next((found for _, text in fragments if (found := nonce_in(text))), "")
            if seen is not None and nonce:
                nonces[seen.task] = nonce
    return nonces
