"""What a chaos run cost, from its clients' history: executions, attempts, times to recover. Stdlib alone."""

from __future__ import annotations

import collections
import math
import re
import statistics
from dataclasses import dataclass
from typing import Any

import client_losses
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
    losses: tuple[client_losses.Loss, ...] = ()

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
            lines.append(f"{_share(self.recoveries, 0.95):7.1f}  seconds to recover, p95")
            lines.append(f"{max(self.recoveries):7.1f}  seconds to recover, max")
        lines += client_losses.table(list(self.losses))
        return "\n".join(lines)


def figures(history: History) -> Figures:
    """Count it all."""
    ends = final(history)
    # After a rollback the pool knows nothing of what was executed before.
    executions: dict[tuple[str, int], set[str]] = collections.defaultdict(set)
    for execution in history.executions:
        era = sum(execution.first >= rollback.end for rollback in history.rollbacks)
        executions[execution.label, era].add(execution.nonce)
    losses = tuple(loss for seen in ends.values() for loss in client_losses.losses(history, seen))
    return Figures(
        tasks=len(ends),
        calls=len(history.calls),
        unknown=sum(call.outcome == UNKNOWN for call in history.calls),
        executions=sum(len(nonces) for nonces in executions.values()),
        reexecutions=sum(len(nonces) - 1 for nonces in executions.values()),
        wasted=len(losses),
        unexplained=sum(not loss.blow for loss in losses),
        given_up=sum(seen.state == "failed" and seen.reason in NODE_FAULTS for seen in ends.values()),
        disruptions=sum(seen.disruptions for seen in ends.values()),
        recoveries=tuple(seconds for _, seconds in history.recoveries),
        losses=losses,
    )


def _share(values: tuple[float, ...], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def final(history: History) -> dict[str, Seen]:
    """The last read of each task; one with a history before one without."""
    ends: dict[str, Seen] = {}
    for task, reads in history.by_task(last_era=True).items():
        full = [seen for seen in reads if seen.call == "status"]
        ends[task] = (full or reads)[-1]
    return ends


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
