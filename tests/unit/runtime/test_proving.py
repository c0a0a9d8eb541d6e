"""What is told of defences: a trial goes before a word; what the owner accepts is not missed."""

from __future__ import annotations

from hivemind_worker.runtime import executor, proving
from hivemind_worker.runtime.capsule import defence_spec
from hivemind_worker.runtime.docker import engine_defences

HOLDS = defence_spec.Verdict("memory", "memory limit", defence_spec.State.HOLDS)
BROKEN = defence_spec.Verdict(
    "system_calls", "system calls filtered", defence_spec.State.BROKEN, "reached: bpf", "mend it"
)
UNTRIED = defence_spec.Verdict("processor", "processor quota", defence_spec.State.UNTRIED, "busy", "try again")


def test_an_engines_word_goes_once_the_deed_was_tried() -> None:
    info = {"SecurityOptions": ["name=seccomp"], "MemoryLimit": True, "SwapLimit": True, "CpuCfsQuota": True}
    read = engine_defences.read(info)
    shown = {row.check: row for row in proving.merged(read, proving.rows((HOLDS, BROKEN, UNTRIED)))}
    assert "system call filter" not in shown, "the engine says that it has one"
    assert shown["system calls filtered"] == executor.Defence(
        "system calls filtered", in_force=False, why="reached: bpf", fix="mend it", id="system_calls"
    )
    assert shown["processor quota"].in_force
    assert shown["processor quota"].why == "not tried: busy"
    assert shown["process limit"].why == "the engine cannot limit processes", "what was not tried is as it was read"
    assert "no swap" in shown


def test_an_owner_may_do_without_a_defence() -> None:
    assert proving.broken((HOLDS, BROKEN, UNTRIED)) == (BROKEN,)
    assert proving.broken((HOLDS, BROKEN, UNTRIED), frozenset({"system_calls"})) == ()
