"""What must hold of every run, whatever was killed, cut off or full meanwhile. Pure: a history in, violations out."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import history

from hivemind_worker import errors
from hivemind_worker.tasks import outcome, resources, state

SLACK_SECONDS = 3.0
"""Beyond lease and grace: a look at the processes, a heartbeat and a slow machine lie between a word and its deed."""

MAX_DISRUPTIONS = 30
"""So often the system itself may end a task's attempts before it gives the task up."""

_ENDS = frozenset({state.Move.COMPLETE, state.Move.FAIL, state.Move.CANCEL})


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken: which, by what, how."""

    invariant: str
    about: str
    how: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.about}: {self.how}"


Found = Iterator[tuple[str, str]]


def check(run: history.History) -> list[Violation]:
    """Return every violation; none in a run that kept all promises."""
    return [Violation(name, about, how) for name, look in INVARIANTS.items() for about, how in look(run)]


def every_task_is_there(run: history.History) -> Found:
    """Every accepted task is there and has ended; no other is, but those that a restore may have brought back."""
    there = {task.id: task for task in run.tasks}
    for task_id in run.expected.keys() - there.keys():
        yield task_id, "was accepted, and is lost"
    for task_id in there.keys() & run.expectations.keys():
        if there[task_id].state not in state.ENDED:
            yield task_id, f"has not ended: {there[task_id].state}"
    for task_id in there.keys() - run.expectations.keys():
        yield task_id, "nobody submitted it"


def the_story_is_possible(run: history.History) -> Found:
    """Each move is one of the table; attempts are counted one by one."""
    for task in run.tasks:
        at, attempt = state.TaskState.QUEUED, 0
        for event in task.events:
            if event.event not in set(state.Move):
                continue
            try:
                at = state.after(at, state.Move(event.event))
            except errors.ImpossibleMove as error:
                yield task.id, str(error)
                break
            if event.event == state.Move.ASSIGN:
                # The same attempt again: its node had lost the lease and still held it.
                if event.attempt not in {attempt, attempt + 1}:
                    yield task.id, f"attempt {event.attempt} follows attempt {attempt}"
                attempt = event.attempt
        else:
            if at != task.state:
                yield task.id, f"its story ends as {at}, it is {task.state}"
            if attempt != task.attempt or attempt - task.disruptions > task.max_attempts:
                yield task.id, f"{attempt} attempts in its story, {task.attempt} counted, {task.max_attempts} allowed"


def one_attempt_one_node(run: history.History) -> Found:
    """An attempt is one node's, for ever."""
    for task in run.tasks:
        nodes: dict[int, set[str]] = collections.defaultdict(set)
        for event in task.events:
            if event.event == state.Move.ASSIGN:
                nodes[event.attempt].add(event.node_id)
        for attempt, holders in nodes.items():
            if len(holders) > 1:
                yield task.id, f"attempt {attempt} was handed to {' and '.join(sorted(holders))}"


def one_accepted_end(run: history.History) -> Found:
    """Exactly one end; it is the accepted report of its attempt, or the pool's own word where there was none."""
    for task in run.tasks:
        ends = [event for event in task.events if event.event in _ENDS]
        if task.state in state.ENDED and len(ends) != 1:
            yield task.id, f"{len(ends)} ends: {', '.join(event.event for event in ends)}"
        accepted = [report for report in task.reports if report.verdict == "accepted"]
        final = [
            report for report in accepted if report.attempt == task.result or not outcome.is_nodes_fault(report.reason)
        ]
        if len(final) > 1:
            yield (
                task.id,
                f"the ends of attempts {', '.join(str(report.attempt) for report in final)} were all accepted",
            )
        if task.result and task.result not in {report.attempt for report in accepted}:
            yield task.id, f"its result is attempt {task.result}'s, whose report was not accepted"
        if not task.result and final:
            yield task.id, f"the end of attempt {final[0].attempt} was accepted and is not its result"
        if task.state == state.TaskState.COMPLETED and not task.result:
            yield task.id, "completed without a report"


def the_right_end(run: history.History) -> Found:
    """As its submitter had reason to expect; a node's fault ends a task only when its attempts are used up."""
    expectations = run.expectations
    for task in run.tasks:
        wanted = expectations.get(task.id)
        if wanted is None or task.state not in state.ENDED:
            continue
        if task.state == state.TaskState.CANCELLED and wanted.may_be_cancelled:
            continue
        if outcome.is_nodes_fault(task.reason):
            if task.attempt - task.disruptions < task.max_attempts and task.disruptions < MAX_DISRUPTIONS:
                yield task.id, f"{task.reason} ended it at attempt {task.attempt} of {task.max_attempts}"
        elif (task.state, task.reason) != (wanted.status, wanted.reason):
            yield task.id, f"{task.state} ({task.reason}), not {wanted.status} ({wanted.reason})"


def the_right_bytes(run: history.History) -> Found:
    """Bytes accepted are the bytes produced: exit code, output, result files, and each file whole in the pool."""
    expectations = run.expectations
    for task in run.tasks:
        wanted = expectations.get(task.id)
        result = next((report for report in task.reports if report.attempt == task.result), None)
        if wanted is None or result is None or (result.status, result.reason) != (wanted.status, wanted.reason):
            continue
        yield from ((task.id, how) for how in _differences(wanted, result))
        for name, sha256 in result.files.items():
            if sha256 not in run.stored:
                yield task.id, f"{name} is not whole in the pool"


def _differences(wanted: history.Expected, result: history.Report) -> Iterator[str]:
    if wanted.exit_code is not None and result.exit_code != wanted.exit_code:
        yield f"exit code {result.exit_code}, not {wanted.exit_code}"
    if wanted.files is not None:
        known = {name: sha256 for name, sha256 in result.files.items() if wanted.files.get(name) != ""}
        right = {name: sha256 for name, sha256 in wanted.files.items() if sha256}
        if known != right or not wanted.files.keys() <= result.files.keys():
            yield f"result files {dict(result.files)}, not {dict(wanted.files)}"
    if wanted.stdout_bytes is not None and result.stdout_bytes != wanted.stdout_bytes:
        yield f"{result.stdout_bytes} bytes of output, not {wanted.stdout_bytes}"
    if wanted.logs is not None and not result.truncated and result.logs != wanted.logs:
        yield f"output of {len(result.logs)} characters that is not what it wrote"


def no_capsule_outlives_its_lease(run: history.History) -> Found:
    """None lives on, longer than lease and grace, once its attempt is nobody's, but while nobody there could act."""
    tasks = {task.id: task for task in run.tasks}
    told = set()
    for seen in sorted(run.of_this_epoch, key=lambda seen: seen.at):
        if seen.capsule in told or seen.task_id not in tasks:
            continue
        ends = [end for begin, end in history.in_force(tasks[seen.task_id], seen.node_id) if begin <= seen.at + 1.0]
        if not ends:
            told.add(seen.capsule)
            yield seen.task_id, f"{seen.capsule} runs at {seen.node_id}, which was never given it"
            continue
        over = seen.at - max(ends)
        excused = _absent(run, seen.node_id, max(ends), seen.at)
        if over - excused > run.lease_seconds + run.grace_seconds + SLACK_SECONDS:
            told.add(seen.capsule)
            yield seen.task_id, f"{seen.capsule} still runs at {seen.node_id} {over:.1f} s after its attempt's end"


def no_capsule_outlives_its_epoch(run: history.History) -> Found:
    """What ran for a store that was wiped or set back ends soon after: once its node could hear that it is another."""
    last: dict[str, history.Sighting] = {}
    there = {task.id for task in run.tasks}
    set_back = run.epoch_at > float("-inf")
    earlier = {
        seen.capsule for seen in run.sightings if set_back and (seen.at < run.epoch_at or seen.task_id not in there)
    }
    for seen in sorted(run.sightings, key=lambda seen: seen.at):
        if seen.capsule in earlier:
            last[seen.capsule] = seen
    for seen in last.values():
        over = seen.at - run.epoch_at
        excused = _absent(run, seen.node_id, run.epoch_at, seen.at) if over > 0 else 0.0
        if over - excused > run.lease_seconds + run.grace_seconds + SLACK_SECONDS:
            yield seen.task_id, f"{seen.capsule} still runs at {seen.node_id} {over:.1f} s after its store was set back"


def _absent(run: history.History, node_id: str, begin: float, end: float) -> float:
    """Seconds of the span in which the node or the pool could not act."""
    spans = sorted(
        (max(away.begin, begin), min(away.end, end))
        for away in run.absences
        if away.who in {node_id, "pool"} or not node_id
    )
    total, reached = 0.0, begin
    for first, last in spans:
        if last > reached:
            total += last - max(first, reached)
            reached = last
    return total


def an_attempt_runs_once(run: history.History) -> Found:
    """A task's processes are at most as many as its attempts."""
    runs: dict[str, set[str]] = collections.defaultdict(set)
    for seen in run.of_this_epoch:
        runs[seen.task_id].add(seen.capsule)
    for task in run.tasks:
        if len(runs[task.id]) > task.attempt:
            yield task.id, f"ran {len(runs[task.id])} times in {task.attempt} attempts"


def reserved_within_capacity(run: history.History) -> Found:
    """What runs at a node at once never exceeds its capacity nor its number of tasks."""
    needs = {task.id: task.needs for task in run.tasks}
    at_once: dict[tuple[str, float], dict[str, str]] = collections.defaultdict(dict)
    for seen in run.sightings:
        if seen.node_id:
            at_once[seen.node_id, seen.at][seen.capsule] = seen.task_id
    told: set[str] = set()
    for (node_id, at), capsules in at_once.items():
        room = run.rooms.get(node_id)
        if room is None or node_id in told:
            continue
        wanted = sum((needs.get(task_id, _NOTHING) for task_id in capsules.values()), _NOTHING)
        lacking = list(wanted.lacking(room.capacity))
        if room.slots and len(capsules) > room.slots:
            lacking.append(f"{len(capsules)} at once where {room.slots} may be")
        if lacking:
            told.add(node_id)
            yield node_id, f"at {at:.1f}: {'; '.join(lacking)}"


_NOTHING = resources.Resources()


def nothing_is_left(run: history.History) -> Found:
    """After the end no container, process or file of a task is there."""
    yield from (("this machine", f"left behind: {what}") for what in run.left)


INVARIANTS: Mapping[str, Callable[[history.History], Found]] = {
    look.__name__: look
    for look in (
        every_task_is_there,
        the_story_is_possible,
        one_attempt_one_node,
        one_accepted_end,
        the_right_end,
        the_right_bytes,
        no_capsule_outlives_its_lease,
        no_capsule_outlives_its_epoch,
        an_attempt_runs_once,
        reserved_within_capacity,
        nothing_is_left,
    )
}
