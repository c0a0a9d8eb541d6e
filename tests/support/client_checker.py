"""Judges a chaos run by what its clients saw and what really ran, and by nothing else: no code of the product is here.

Usage: python client_checker.py HISTORY.jsonl

Each rule is a promise of `docs/guarantees.md`, written as a function of the history that yields what broke it.
"""

from __future__ import annotations

import collections
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import client_figures
import client_history
import client_losses
from client_history import NODE_FAULTS, OK, REFUSED, Call, Execution, History, Planned, Seen

Findings = Iterator[tuple[str, str]]


def check(history: History) -> list[str]:
    """Return every violation as one line: rule, task, what happened."""
    return [f"{name}: {about}: {how}" for name, rule in RULES.items() for about, how in rule(history)]


def acknowledged_tasks_end(history: History) -> Findings:
    """Every acknowledged submit is there at the end of the run, and has ended (liveness)."""
    final = client_figures.final(history)
    last_era = len(history.rollbacks)
    times = acknowledged(history)
    for task in sorted(times):
        seen = final.get(task)
        if seen is None:
            yield task, "was acknowledged, and no read at the end of the run shows it"
        elif not seen.ended:
            yield task, f"has not ended by the deadline: {seen.state} (attempt {seen.attempt})"
    for call in history.calls:
        if call.name == "status" and call.outcome == REFUSED and call.error == "NoSuchTask":
            since = times.get(call.args["task"], math.inf)
            if call.begin >= since and history.era(call.begin, call.end) == last_era:
                yield call.args["task"], "was acknowledged, and a later read does not find it"


def acknowledged(history: History) -> dict[str, float]:
    """Tasks that the pool must have at the end, with the time of the acknowledgement."""
    times: dict[str, float] = {}
    for call in history.calls:
        if call.outcome != OK or call.name not in {"submit", "retry"}:
            continue
        forgotten = any(call.begin < rollback.end and call.end > rollback.saved_begin for rollback in history.rollbacks)
        lost = any(rollback.what == "wipe" and call.begin < rollback.end for rollback in history.rollbacks)
        if not (forgotten or lost):
            for task in call.value:
                times[task] = min(call.end, times.get(task, math.inf))
    return times


def nothing_is_invented(history: History) -> Findings:
    """The pool shows no task that nobody submitted; a retry whose answer was lost may have made some."""
    planned = {plan.task for plan in history.planned}
    open_retries = any(call.name == "retry" and call.outcome != OK for call in history.calls)
    for task in sorted({seen.task for seen in history.seen} - planned):
        if not open_retries:
            yield task, "is shown, and nobody submitted it"


def results_never_change(history: History) -> Findings:
    """A result that was seen once is the same in every read that began after it; so are a task's result files."""
    for task, reads in history.by_task().items():
        ends = [seen for seen in reads if seen.ended]
        for first, later in _pairs(history, ends):
            if later.result != first.result:
                yield task, f"ended as {first.result}, then read as {later.result}"
                break
            if first.files and later.files and dict(first.files) != dict(later.files):
                yield task, f"had the result files {_names(first.files)}, then {_names(later.files)}"
                break


def reads_never_go_back(history: History) -> Findings:
    """What a read showed, every read that begins after it shows as well: end, attempt, history, a wish to cancel."""
    for task, reads in history.by_task().items():
        for first, later in _pairs(history, reads):
            if first.ended and not later.ended:
                yield task, f"was {first.state}, then read as {later.state}"
            elif later.attempt < first.attempt:
                yield task, f"was in attempt {first.attempt}, then read in attempt {later.attempt}"
            elif first.cancel_requested and not later.cancel_requested and not later.ended:
                yield task, "had a wish to cancel, then it was forgotten"
            else:
                continue
            break
        stories = [seen for seen in reads if seen.story]
        for first, later in _pairs(history, stories):
            if later.story[: len(first.story)] != first.story:
                yield task, f"its history was rewritten: {first.story[-1]} was read, then {later.story[-1:]}"
                break


def _pairs(history: History, reads: list[Seen]) -> Iterator[tuple[Seen, Seen]]:
    """Each read with the newest one that had ended before it began, of the same era."""
    done: list[Seen] = []
    for seen in sorted(reads, key=lambda seen: seen.begin):
        done.append(seen)
        era = history.era(seen.begin, seen.end)
        earlier = [other for other in done if other.end < seen.begin and history.era(other.begin, other.end) == era]
        if earlier:
            best = max(earlier, key=lambda other: (other.ended, other.attempt, len(other.story), other.end))
            yield best, seen
            done = [other for other in done if other is best or other.end >= seen.begin]


def output_is_one_executions(history: History) -> Findings:
    """Output that is shown was written by one execution of this very submission, and by the attempt it is shown as."""
    owners = {execution.nonce: execution for execution in history.executions}
    attempts: dict[tuple[str, int, int], set[str]] = collections.defaultdict(set)
    for call in _reads(history, "logs"):
        era = history.era(call.begin, call.end)
        plan = history.plan(call.args["task"], era) if era is not None else None
        if era is None or plan is None:
            continue
        for attempt, fragments in client_figures.outputs(call.value).items():
            nonce, how = _nonce(plan, fragments)
            owner = owners.get(nonce)
            if how:
                yield plan.task, f"attempt {attempt}: {how}"
            elif owner is not None and owner.label != plan.label:
                yield plan.task, f"shows output of {owner.label}"
            if nonce:
                attempts[plan.task, era, attempt].add(nonce)
    for (task, _, attempt), nonces in attempts.items():
        if len(nonces) > 1:
            yield task, f"attempt {attempt} showed output of {len(nonces)} executions: {', '.join(sorted(nonces))}"


def _nonce(plan: Planned, fragments: list[tuple[int, str]]) -> tuple[str, str]:
    """The execution that wrote these pieces of output, as (offset, text), and what is wrong with them."""
    nonce = next((found for _, text in fragments if (found := client_figures.nonce_in(text))), "")
    if not nonce:
        return "", ""
    whole = plan.output(nonce)
    for offset, text in fragments:
        if whole[offset : offset + len(text)] != text:
            at = next((i for i, (a, b) in enumerate(zip(whole[offset:], text, strict=False)) if a != b), len(text))
            shown = text[max(at - 20, 0) : at + 40]
            return nonce, f"byte {offset + at} of its output is not what {nonce} of {plan.label} writes: {shown!r}"
    return nonce, ""


def _reads(history: History, name: str) -> Iterator[Call]:
    return (call for call in history.calls if call.name == name and call.outcome == OK)


def _last_reads(history: History, name: str) -> Iterator[Call]:
    """Those of the end of the run, of its last era."""
    last_era = len(history.rollbacks)
    calls = (call for call in _reads(history, name) if call.args.get("final"))
    return (call for call in calls if history.era(call.begin, call.end) == last_era)


def finished_output_is_whole(history: History) -> Findings:
    """At the end a completed task's output is there to the last byte, unless its result says that some was dropped.

    Power cuts are no excuse: the pool syncs output before it accepts an end, so that it can still be marked as missing.
    """
    final = client_figures.final(history)
    for call in _last_reads(history, "logs"):
        seen = final.get(call.args["task"])
        if seen is None or seen.state != "completed" or seen.flags:
            continue
        plan = history.plan(seen.task, len(history.rollbacks))
        shown = client_figures.outputs(call.value).get(seen.attempt, [])
        got = client_figures.covered(shown)
        if plan is not None and got != len(plan.output("x" * client_figures.NONCE_LENGTH)):
            yield seen.task, f"{got} bytes of its output can be read, and no flag says that some are missing"


def results_are_right(history: History) -> Findings:
    """A task ends as its submission must, with the files that its program wrote."""
    final = client_figures.final(history)
    for task, seen in final.items():
        plan = history.plan(task, len(history.rollbacks))
        if plan is None or not seen.ended:
            continue
        if seen.state == "cancelled" and plan.may_be_cancelled:
            continue
        if seen.reason in NODE_FAULTS:
            continue  # failures_are_earned
        exit_code = seen.exit_code if plan.exit_code is None else plan.exit_code
        if (seen.state, seen.reason, seen.exit_code) != (plan.status, plan.reason, exit_code):
            yield task, f"{seen.result}, not {(plan.status, plan.reason, plan.exit_code)}"
        for name in sorted(plan.files.keys() | seen.files.keys()):
            right, got = plan.files.get(name), seen.files.get(name)
            if name == "*" and got and "results_truncated" in seen.flags:
                continue  # too many to be named in a message, and said so
            if right is None or got is None or (right and right != got):
                yield task, f"result file {name} is {got}, not {right or 'any content'}"


def files_name_their_execution(history: History) -> Findings:
    """A result file that names the execution that wrote it names the one whose output is shown, of this submission."""
    nonces = client_figures.final_nonces(history)
    owners = {execution.nonce: execution for execution in history.executions}
    for call in _last_reads(history, "download"):
        plan = history.plan(call.args["task"], len(history.rollbacks))
        if plan is None:
            continue
        for name, content in call.value.items():
            words = content.split()
            nonce = words[0] if words else ""
            if words[1:] != [plan.label] or (nonce in owners and owners[nonce].label != plan.label):
                yield plan.task, f"result file {name} has the content {content[:80]!r}, not {plan.label}'s"
            elif nonces.get(plan.task, nonce) != nonce:
                yield plan.task, f"its output is execution {nonces[plan.task]}'s, its result file {nonce}'s"


def failures_are_earned(history: History) -> Findings:
    """A node's fault ends a task only after all its attempts, each of them lost while something struck it."""
    for task, seen in client_figures.final(history).items():
        plan = history.plan(task, len(history.rollbacks))
        if seen.reason not in NODE_FAULTS or plan is None or (seen.state == "cancelled" and plan.may_be_cancelled):
            continue
        if seen.attempt - seen.disruptions < plan.max_attempts and seen.disruptions < history.bounds.max_disruptions:
            counted = f"{seen.attempt} attempts of {plan.max_attempts}, {seen.disruptions} disruptions"
            yield task, f"{seen.reason} ended it after {counted}"
        for loss in client_losses.losses(history, seen):
            if not loss.blow:
                yield task, f"{seen.reason} ended it, and nothing struck its attempt {loss.attempt}"


def cancels_are_respected(history: History) -> Findings:
    """No execution begins once a wish to cancel was acknowledged and its node could hear of it; then the task ends."""
    by_label: dict[str, list[Execution]] = collections.defaultdict(list)
    for execution in history.executions:
        by_label[execution.label].append(execution)
    for call in _reads(history, "cancel"):
        era = history.era(call.begin, call.end)
        plan = history.plan(call.args["task"], era) if era is not None else None
        if plan is None or (era != len(history.rollbacks) and any(r.begin > call.end for r in history.rollbacks)):
            continue
        for execution in by_label[plan.label]:
            waits = client_figures.absence(history, execution.node, call.end, execution.first)
            late = execution.first - call.end - waits
            if call.value == "cancelled" and late > _patience(history):
                yield plan.task, f"was cancelled, and execution {execution.nonce} began {late:.1f} s later"
            elif late > _patience(history) + history.bounds.lease_seconds:
                yield plan.task, f"was to be cancelled, and execution {execution.nonce} began {late:.1f} s later"


def _patience(history: History) -> float:
    bounds = history.bounds
    return bounds.lease_seconds + bounds.grace_seconds + bounds.slack_seconds


def each_attempt_executes_once(history: History) -> Findings:
    """Executions since the last rollback are at most as many as attempts."""
    since = history.rollbacks[-1].end if history.rollbacks else -math.inf
    nonces: dict[str, set[str]] = collections.defaultdict(set)
    for execution in history.executions:
        if execution.first >= since:
            nonces[execution.label].add(execution.nonce)
    attempts: collections.Counter[str] = collections.Counter()
    for task, seen in client_figures.final(history).items():
        plan = history.plan(task, len(history.rollbacks))
        if plan is not None:
            attempts[plan.label] += seen.attempt
    for label, counted in attempts.items():
        if len(nonces[label]) > counted:
            yield label, f"was executed {len(nonces[label])} times in {counted} attempts"


def no_execution_outlives_its_attempt(history: History) -> Findings:
    """None lives on, longer than lease and grace, after its task was seen to have ended, but where nobody could act."""
    ends: dict[str, float] = {}
    for task, reads in history.by_task(last_era=True).items():
        plan = history.plan(task, len(history.rollbacks))
        ended = min((seen.end for seen in reads if seen.ended), default=math.inf)
        if plan is not None:
            ends[plan.label] = max(ended, ends.get(plan.label, -math.inf))
    for execution in history.executions:
        end = ends.get(execution.label, math.inf)
        over = execution.last - max(end, execution.first)
        if end < execution.last:
            over -= client_figures.absence(history, execution.node, end, execution.last)
            if over > _patience(history):
                yield execution.label, f"execution {execution.nonce} lived {over:.1f} s after the task's end"


def ids_in_use_are_refused(history: History) -> Findings:
    """Another command under an id that the pool has is refused, and changes nothing."""
    for call in history.calls:
        if call.name == "submit_other" and call.outcome == OK:
            yield call.args["task"], "another command under this id was accepted while the pool had the task"


def nothing_is_left(history: History) -> Findings:
    """After the end no process, mount, container, network or file of the run is there."""
    yield from (("this machine", f"left behind: {name}") for name in history.leftovers)


def each_loss_has_its_blow(history: History) -> Findings:
    """Each attempt that brought no end was struck by a blow that explains how it was lost, and was not healed then."""
    for seen in client_figures.final(history).values():
        for loss in client_losses.losses(history, seen):
            if not loss.blow:
                yield loss.task, f"{loss}, between {loss.begin:.1f} and {loss.end:.1f}"


def costs_are_bounded(history: History) -> Findings:
    """Executions, attempts and time that faults cost stay within the run's bounds."""
    figures, bounds = client_figures.figures(history), history.bounds
    tasks = max(figures.tasks, 1)
    shares = (
        ("executed again", figures.reexecutions, bounds.max_reexecuted_share),
        ("attempts wasted", figures.wasted, bounds.max_wasted_share),
        ("tasks given up", figures.given_up, bounds.max_given_up_share),
    )
    for name, count, share in shares:
        if count > max(3.0, share * tasks):
            yield "the run", f"{count} {name} of {tasks} tasks, more than {share:.0%}"
    for who, seconds in history.recoveries:
        if seconds > bounds.max_recovery_seconds:
            yield who, f"took {seconds:.1f} s to recover, more than {bounds.max_recovery_seconds:g} s"


def _names(files: Mapping[str, str]) -> str:
    return ", ".join(sorted(files)[:5])


RULES: Mapping[str, Callable[[History], Findings]] = {
    rule.__name__: rule
    for rule in (
        acknowledged_tasks_end,
        nothing_is_invented,
        results_never_change,
        reads_never_go_back,
        output_is_one_executions,
        finished_output_is_whole,
        results_are_right,
        files_name_their_execution,
        failures_are_earned,
        cancels_are_respected,
        each_attempt_executes_once,
        no_execution_outlives_its_attempt,
        ids_in_use_are_refused,
        nothing_is_left,
        each_loss_has_its_blow,
        costs_are_bounded,
    )
}


def main(path: str) -> int:
    """Print violations and figures; 0 where nothing was violated."""
    history = client_history.load(Path(path))
    violations = check(history)
    print(client_figures.figures(history).text)  # noqa: T201
    for violation in violations:
        print(f"!! {violation}")  # noqa: T201
    return int(bool(violations))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
