"""The proof of the checker of clients' histories: a sound run passes, and each violation planted in it is caught."""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import client_checker
import client_figures
import client_history
import client_losses
import pytest

NONCES = ("aaaaaaaa-0001", "aaaaaaaa-0002", "bbbbbbbb-0001", "cccccccc-0001")
SUM = "ab" * 32
Story = tuple[tuple[str, int, str], ...]

LOST: Story = (("submit", 0, ""), ("assign", 1, "n1"), ("start", 1, "n1"), ("requeue", 1, "n1"))
MOVED: Story = (*LOST, ("assign", 2, "n2"), ("start", 2, "n2"), ("complete", 2, "n2"))
PLAIN: Story = (("submit", 0, ""), ("assign", 1, "n2"), ("complete", 1, "n2"))

MOVED_PLAN = client_history.Planned("moved", "moved.0", first=5, lines=3, files={"name": "", "numbers": SUM})
PLAIN_PLAN = client_history.Planned("plain", "plain.0", first=1, lines=2)
STOPPED_PLAN = client_history.Planned("stopped", "stopped.0", may_be_cancelled=True)


def _call(number: int, name: str, begin: float, value: object, **args: object) -> client_history.Call:
    return client_history.Call(number, name, args, begin, begin + 0.5, client_history.OK, value)


def _read(task: str, at: float, state: str, attempt: int, story: Story = (), **more: Any) -> client_history.Seen:
    return client_history.Seen(
        task, at, at + 0.5, state, attempt, story=story, call="status" if story else "list", **more
    )


FILES = {"name": "cd" * 32, "numbers": SUM}


def sound() -> client_history.History:
    """Three tasks: one lost its first attempt with its node, one went through at once, one was cancelled."""
    output = MOVED_PLAN.output(NONCES[1])
    return client_history.History(
        calls=(
            _call(1, "submit", 0, ["moved", "plain", "stopped"], tasks=["moved", "plain", "stopped"]),
            _call(2, "cancel", 3, "cancelled", task="stopped"),
            _call(3, "logs", 20, [[1, "stdout", 0, MOVED_PLAN.output(NONCES[0])[:25]]], task="moved"),
            _call(
                4, "logs", 40, [[2, "stdout", 0, output[:30]], [2, "stdout", 30, output[30:]]], task="moved", final=True
            ),
            _call(5, "logs", 41, [[1, "stdout", 0, PLAIN_PLAN.output(NONCES[2])]], task="plain", final=True),
            _call(6, "download", 42, {"name": f"{NONCES[1]} moved.0\n"}, task="moved", final=True),
        ),
        seen=(
            _read("moved", 5, "running", 1),
            _read("moved", 15, "queued", 1, LOST),
            _read("moved", 30, "completed", 2, MOVED, exit_code=0, files=FILES),
            _read("moved", 43, "completed", 2, MOVED, exit_code=0, files=FILES),
            _read("plain", 10, "completed", 1, PLAIN, exit_code=0),
            _read("plain", 44, "completed", 1, PLAIN, exit_code=0),
            _read("stopped", 45, "cancelled", 0, (("submit", 0, ""), ("cancel", 0, "")), reason="cancelled"),
        ),
        planned=(MOVED_PLAN, PLAIN_PLAN, STOPPED_PLAN),
        executions=(
            client_history.Execution("moved.0", NONCES[0], "1", "n1", 4, 9),
            client_history.Execution("moved.0", NONCES[1], "2", "n2", 20, 28),
            client_history.Execution("plain.0", NONCES[2], "3", "n2", 5, 9),
        ),
        faults=(client_history.Fault("kill", "n1", 8, 10, 18),),
        recoveries=(("n1", 2.5),),
    )


TASKS = ("moved", "plain", "stopped")


def _last(task: str) -> client_history.Seen:
    return next(seen for seen in reversed(sound().seen) if seen.task == task)


Change = Callable[[client_history.History], client_history.History]


def _calls(*more: client_history.Call, drop: tuple[int, ...] = ()) -> Change:
    def change(run: client_history.History) -> client_history.History:
        return dataclasses.replace(run, calls=(*(call for call in run.calls if call.number not in drop), *more))

    return change


def _seen(*more: client_history.Seen, drop: str = "") -> Change:
    def change(run: client_history.History) -> client_history.History:
        return dataclasses.replace(run, seen=(*(seen for seen in run.seen if seen.task != drop), *more))

    return change


def _ran(*more: tuple[str, str, str, float, float]) -> Change:
    def change(run: client_history.History) -> client_history.History:
        executions = (client_history.Execution(label, nonce, nonce, *rest) for label, nonce, *rest in more)  # type: ignore[arg-type]
        return dataclasses.replace(run, executions=(*run.executions, *executions))

    return change


def _without(**changes: object) -> Change:
    return lambda run: dataclasses.replace(run, **changes)  # type: ignore[arg-type]


def _logs(text: str, *, offset: int = 0, attempt: int = 2, task: str = "moved", final: bool = True) -> Change:
    drop = (4,) if task == "moved" else (5,)
    return _calls(_call(4, "logs", 40, [[attempt, "stdout", offset, text]], task=task, final=final), drop=drop)


def _given_up(attempt: int, reason: str = "worker_crash", story: Story = MOVED[:-1]) -> Change:
    return _seen(_read("moved", 50, "failed", attempt, (*story, ("fail", attempt, "n2")), reason=reason), drop="moved")


def _lost(reason: str, kind: str, who: str = "n1") -> Change:
    """Its first attempt was lost for this reason, while this blow was all that fell."""

    def change(run: client_history.History) -> client_history.History:
        seen = (dataclasses.replace(read, losses={"1": reason}) if read.task == "moved" else read for read in run.seen)
        return dataclasses.replace(run, seen=tuple(seen), faults=(client_history.Fault(kind, who, 8, 10, 18),))

    return change


NOT_FOUND = client_history.Call(9, "status", {"task": "plain"}, 8, 9, "refused", None, "NoSuchTask")
OUTPUT = MOVED_PLAN.output(NONCES[1])
PLANTED: list[tuple[str, Change]] = [
    ("acknowledged_tasks_end", _seen(drop="plain")),
    ("acknowledged_tasks_end", _seen(_read("plain", 44, "running", 1, PLAIN[:2]), drop="plain")),
    ("acknowledged_tasks_end", _calls(NOT_FOUND)),
    ("nothing_is_invented", _seen(_read("stranger", 44, "completed", 1, PLAIN, exit_code=0))),
    ("results_never_change", _seen(_read("plain", 60, "failed", 1, PLAIN, reason="timeout"))),
    ("results_never_change", _seen(_read("plain", 60, "completed", 2, PLAIN, exit_code=0))),
    ("results_never_change", _seen(_read("moved", 60, "completed", 2, MOVED, exit_code=0, files={"numbers": SUM}))),
    ("reads_never_go_back", _seen(_read("plain", 11, "running", 1))),
    ("reads_never_go_back", _seen(_read("moved", 16, "queued", 0))),
    ("reads_never_go_back", _seen(_read("moved", 16, "queued", 1, LOST[:3]))),
    ("reads_never_go_back",
     _seen(_read("moved", 16, "running", 2, cancel_requested=True), _read("moved", 18, "running", 2))),
    # Another execution's, another submission's, an older command's under the same id, two spliced, in mid-line.
    ("output_is_one_executions", _logs(PLAIN_PLAN.output(NONCES[2]))),
    ("output_is_one_executions", _logs(dataclasses.replace(MOVED_PLAN, label="moved.1").output(NONCES[1]))),
    ("output_is_one_executions", _logs(OUTPUT[:40] + MOVED_PLAN.output(NONCES[0])[40:])),
    ("output_is_one_executions", _logs(OUTPUT[7:], offset=0)),
    ("output_is_one_executions", _logs(MOVED_PLAN.output(NONCES[2]))),
    ("output_is_one_executions",
     _calls(_call(9, "logs", 50, [[2, "stdout", 0, MOVED_PLAN.output(NONCES[0])]], task="moved"))),
    ("finished_output_is_whole", _logs(OUTPUT[:-5])),
    ("finished_output_is_whole", _logs(OUTPUT[9:], offset=9)),
    ("results_are_right", _seen(_read("plain", 44, "completed", 1, PLAIN, exit_code=1), drop="plain")),
    ("results_are_right", _seen(_read("plain", 44, "failed", 1, PLAIN, reason="oom"), drop="plain")),
    ("results_are_right", _seen(_read("plain", 44, "cancelled", 1, PLAIN, reason="cancelled"), drop="plain")),
    ("results_are_right",
     _seen(_read("moved", 50, "completed", 2, MOVED, exit_code=0, files={**FILES, "numbers": "00"}), drop="moved")),
    ("results_are_right",
     _seen(_read("moved", 50, "completed", 2, MOVED, exit_code=0, files={"name": SUM}), drop="moved")),
    ("files_name_their_execution",
     _calls(_call(6, "download", 42, {"name": f"{NONCES[0]} moved.0\n"}, task="moved", final=True), drop=(6,))),
    ("files_name_their_execution",
     _calls(_call(6, "download", 42, {"name": f"{NONCES[1]} moved.1\n"}, task="moved", final=True), drop=(6,))),
    ("failures_are_earned", _given_up(2)),
    ("failures_are_earned", _given_up(3)),  # its second and third attempts nothing struck
    ("cancels_are_respected", _ran(("stopped.0", NONCES[3], "n2", 20, 21))),
    ("each_attempt_executes_once", _ran(("plain.0", NONCES[3], "n2", 6, 7))),
    ("no_execution_outlives_its_attempt", _ran(("plain.0", NONCES[2], "n2", 5, 60))),
    ("ids_in_use_are_refused", _calls(_call(9, "submit_other", 30, ["plain"], task="plain"))),
    ("nothing_is_left", _without(leftovers=("process 7: bwrap",))),
    ("costs_are_bounded", _without(recoveries=(("n1", 61.0),))),
    ("each_loss_has_its_blow", _without(faults=())),
    # A blow that had healed before, one to another node, one that does not silence a node, one that falls afterwards.
    ("each_loss_has_its_blow", _without(faults=(client_history.Fault("kill", "n1", 1, 2, 4),))),
    ("each_loss_has_its_blow", _without(faults=(client_history.Fault("kill", "n2", 8, 10, 18),))),
    ("each_loss_has_its_blow", _lost("worker_crash: no word for a whole lease", "clock")),
    ("each_loss_has_its_blow", _lost("worker_crash: no word for a whole lease", "fill_logs")),
    ("each_loss_has_its_blow", _lost("engine_lost: no answer", "part")),
    ("each_loss_has_its_blow", _lost("timeout: of something", "kill")),
    ("each_loss_has_its_blow", _without(faults=(client_history.Fault("kill", "n1", 16, 17, 25),))),
    ("costs_are_bounded", _ran(*(("moved.0", f"dddddddd-000{number}", "n1", 5, 6) for number in range(4)))),
]  # fmt: skip


def test_a_sound_run_has_no_violation() -> None:
    assert client_checker.check(sound()) == []


@pytest.mark.parametrize(("rule", "change"), PLANTED)
def test_a_planted_violation_is_caught(rule: str, change: Change) -> None:
    found = client_checker.check(change(sound()))
    assert rule in {violation.partition(":")[0] for violation in found}, found


def test_every_rule_has_a_planted_violation() -> None:
    assert {rule for rule, _ in PLANTED} == set(client_checker.RULES)


def test_a_task_may_be_given_up_once_each_attempt_was_struck() -> None:
    struck = _without(faults=tuple(client_history.Fault("kill", node, 8, 49, 49) for node in ("n1", "n2")))
    given_up = _given_up(3)(struck(_calls(drop=(3, 4, 6))(sound())))
    bounds = dataclasses.replace(given_up.bounds, max_given_up_share=1.0)
    assert client_checker.check(dataclasses.replace(given_up, bounds=bounds)) == []


def test_after_a_wipe_the_same_id_is_another_submission() -> None:
    again = client_history.Planned("plain", "plain.1", first=7, lines=1, era=1)
    wiped = dataclasses.replace(
        sound(),
        planned=(*sound().planned, again),
        rollbacks=(client_history.Rollback("wipe", 100, 101),),
        executions=(*sound().executions, client_history.Execution("plain.1", NONCES[3], "9", "n2", 104, 105)),
        calls=(
            *sound().calls,
            _call(20, "submit", 102, ["plain"], tasks=["plain"]),
            _call(21, "logs", 110, [[1, "stdout", 0, again.output(NONCES[3])]], task="plain", final=True),
        ),
        seen=(*sound().seen, _read("plain", 111, "completed", 1, PLAIN, exit_code=0)),
    )
    assert client_checker.check(wiped) == []
    old = _calls(_call(21, "logs", 110, [[1, "stdout", 0, PLAIN_PLAN.output(NONCES[2])]], task="plain"), drop=(21,))
    assert any(each.startswith("output_is_one_executions: plain") for each in client_checker.check(old(wiped)))


def test_after_a_restore_what_was_acknowledged_before_the_backup_must_be_there_and_what_came_later_need_not() -> None:
    restored = dataclasses.replace(sound(), rollbacks=(client_history.Rollback("restore", 100, 101, saved_begin=50),))
    assert any(each.startswith("acknowledged_tasks_end: plain") for each in client_checker.check(restored))
    early = dataclasses.replace(sound(), rollbacks=(client_history.Rollback("restore", 100, 101, saved_begin=0.2),))
    assert client_checker.check(early) == []


def test_a_retry_that_was_acknowledged_before_the_backup_is_there_after_the_restore_and_ends_as_it_must() -> None:
    again = dataclasses.replace(PLAIN_PLAN, task="again")
    end = _read("again", 111, "completed", 1, PLAIN, exit_code=0)
    kept = dataclasses.replace(
        sound(),
        planned=(*sound().planned, again),
        calls=(*sound().calls, _call(19, "retry", 45, ["again"], task="plain")),
        seen=(*sound().seen, *(dataclasses.replace(_last(task), begin=110, end=110.5) for task in TASKS), end),
        rollbacks=(client_history.Rollback("restore", 100, 101, saved_begin=50),),
    )
    assert client_checker.check(kept) == []

    def broken(*reads: client_history.Seen) -> list[str]:
        others = tuple(seen for seen in kept.seen if seen.task != "again")
        return client_checker.check(dataclasses.replace(kept, seen=(*others, *reads)))

    assert broken() == ["acknowledged_tasks_end: again: was acknowledged, and no read at the end of the run shows it"]
    for state, rule in (("running", "acknowledged_tasks_end"), ("failed", "results_are_right")):
        reads = [dataclasses.replace(end, state=state, exit_code=None)]
        assert rule in {each.partition(": again: ")[0] for each in broken(*reads)}
    after = dataclasses.replace(kept, rollbacks=(client_history.Rollback("restore", 100, 101, saved_begin=45.2),))
    assert [each for each in client_checker.check(after) if "again" in each] == []


def test_figures_count_what_was_executed_again_and_wasted() -> None:
    figures = client_figures.figures(sound())
    assert (figures.executions, figures.reexecutions, figures.wasted, figures.unexplained) == (3, 1, 1, 0)
    assert "2.5  seconds to recover, max" in figures.text
    assert "1  lost (?) by kill of a node" in figures.text


@pytest.mark.parametrize(
    ("reason", "kind", "who"),
    [
        ("worker_crash: nothing was heard of n1 for a whole lease", "part", "n1"),
        ("worker_crash: nothing was heard of n1 for a whole lease", "stall", "machine"),
        ("worker_crash: nothing was heard of n1 for a whole lease", "starvation", "n1"),
        ("worker_crash: nothing was heard of n1 for a whole lease", "starvation", "pool"),
        ("worker_crash: n1 holds it no more", "power", "n1"),
        ("node_shutdown: handed back: no room", "fill", "n1"),
        ("internal: no space left", "fill_artifacts", "n1"),
    ],
)
def test_a_loss_names_the_blow_that_explains_it(reason: str, kind: str, who: str) -> None:
    lost = _lost(reason, kind, who)(sound())
    assert client_checker.check(lost) == []
    (loss,) = client_figures.figures(lost).losses
    assert loss.blow == f"{kind} of {who} at 8.0"


def test_the_slowness_of_the_machine_is_named_only_where_nothing_else_explains_a_loss() -> None:
    lost = _lost("worker_crash: nothing was heard of n1 for a whole lease", "part")(sound())
    slow = client_history.Fault("starvation", "n1", 9, 12, 14)
    both = dataclasses.replace(lost, faults=(*lost.faults, slow))
    assert client_figures.figures(both).losses[0].blow == "part of n1 at 8.0"
    alone = dataclasses.replace(lost, faults=(slow,))
    assert client_figures.figures(alone).losses[0].blow == "starvation of n1 at 9.0"


def _told_late(reason: str, last: float, **changes: Any) -> client_history.History:
    """The first attempt's program was last seen alive at ``last``; its end was told long after the blow had healed."""
    told = (_read("moved", 22, "running", 1), _read("moved", 24, "queued", 1, LOST))
    seen = (*(read for read in sound().seen if read.end > 30 or read.task != "moved"), *told)
    first, second, *others = sound().executions
    ran = (dataclasses.replace(first, last=last), dataclasses.replace(second, first=26), *others)
    run = dataclasses.replace(sound(), seen=seen, executions=ran, **changes)
    return _lost(reason, "part")(run)


def test_a_node_that_ended_a_program_under_a_blow_may_tell_of_it_long_after() -> None:
    for reason in ("node_shutdown: node_shutdown", "node_shutdown: handed back"):
        late = _told_late(reason, 9.0)
        assert client_checker.check(late) == []
        assert client_figures.figures(late).losses[0].blow == "part of n1 at 8.0"


@pytest.mark.parametrize(
    ("reason", "last"),
    [
        ("node_shutdown: node_shutdown", 19.0),  # it ran on when the blow had healed
        ("worker_crash: nothing was heard of n1 for a whole lease", 9.0),  # the pool's word, not the node's
        ("internal: no space left", 9.0),  # nor is that what this blow does
    ],
)
def test_a_late_word_excuses_nothing_that_no_blow_explains(reason: str, last: float) -> None:
    found = client_checker.check(_told_late(reason, last))
    assert {each.partition(":")[0] for each in found} == {"each_loss_has_its_blow"}, found


def test_what_never_began_may_have_been_handed_back_at_any_moment_since_it_was_given() -> None:
    reads = (
        _read("moved", 5, "queued", 0),
        _read("moved", 20, "assigned", 1),
        _read("moved", 22, "queued", 1, LOST),
        *(read for read in sound().seen if read.end > 30 and read.task == "moved"),
    )
    run = _seen(*reads, drop="moved")(_without(executions=sound().executions[1:])(_calls(drop=(3,))(sound())))
    full = _lost("node_shutdown: handed back: no room", "fill")(run)
    assert client_checker.check(full) == []
    before = dataclasses.replace(full, faults=(client_history.Fault("fill", "n1", 1, 2, 4.5),))
    assert [each.partition(":")[0] for each in client_checker.check(before)] == ["each_loss_has_its_blow"]


def test_a_program_of_an_earlier_attempt_does_not_date_the_loss_of_a_later_one() -> None:
    ends = {"1": "worker_crash: n1 holds it no more", "2": "node_shutdown: node_shutdown"}
    story: Story = (*MOVED[:-1], ("requeue", 2, "n2"), ("assign", 3, "n1"), ("complete", 3, "n1"))
    blows = (client_history.Fault("kill", "n1", 8, 10, 18), client_history.Fault("part", "n2", 8, 10, 18))
    reads = (
        _read("moved", 5, "running", 1),
        _read("moved", 15, "queued", 1, LOST),
        _read("moved", 30, "running", 2),
        _read("moved", 32, "completed", 3, story, exit_code=0, files=FILES, losses=ends),
    )
    run = dataclasses.replace(_seen(*reads, drop="moved")(_calls(drop=(3, 4, 6))(sound())), faults=blows)
    assert [each.blow for each in client_figures.figures(run).losses] == ["kill of n1 at 8.0", ""]


def test_a_history_file_is_read_as_it_was_written_even_if_its_last_line_was_cut(tmp_path: Path) -> None:
    lines = [
        {"kind": "planned", **dataclasses.asdict(PLAIN_PLAN)},
        {"kind": "call", "n": 1, "at": 0.0, "call": "submit", "args": {"tasks": ["plain"]}},
        {"kind": "answer", "n": 1, "at": 0.5, "outcome": "ok", "value": ["plain"]},
        {"kind": "call", "n": 2, "at": 1.0, "call": "status", "args": {"task": "plain", "final": True}},
        {"kind": "answer", "n": 2, "at": 1.5, "outcome": "ok",
         "value": {"task": "plain", "state": "queued", "attempt": 0, "story": [["submit", 0, ""]]}},
        {"kind": "call", "n": 3, "at": 2.0, "call": "cancel", "args": {"task": "plain"}},
    ]  # fmt: skip
    path = tmp_path / "history.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + '\n{"kind": "ans', encoding="utf-8")
    history = client_history.load(path)
    assert [call.outcome for call in history.calls] == ["ok", "ok", "unknown"]
    assert [violation for violation in client_checker.check(history) if "plain" in violation] == [
        "acknowledged_tasks_end: plain: has not ended by the deadline: queued (attempt 0)"
    ]
    checked = subprocess.run(
        [sys.executable, client_checker.__file__, str(path)], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (1, "")


@pytest.mark.parametrize("module", [client_checker, client_figures, client_history, client_losses])
def test_the_checker_imports_nothing_of_the_product_and_nothing_that_is_installed(module: object) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))  # type: ignore[attr-defined]
    names = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        + ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
    }
    assert names <= set(sys.stdlib_module_names) | {"client_history", "client_figures", "client_losses"}, names
