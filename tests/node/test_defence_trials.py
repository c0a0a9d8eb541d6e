"""What a node makes of trials of its defences: none is taken for granted, and a busy machine is no broken one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import node_parts
import pytest
from subprocess_executor import SubprocessExecutor

from hivemind_worker.artifacts import store
from hivemind_worker.runtime import proving
from hivemind_worker.runtime.capsule import defence_spec
from hivemind_worker.worker.machine import admission, defences, fitness, room

HOLDS = (defence_spec.Verdict("run", "a task runs", defence_spec.State.HOLDS),)
SLOW = (defence_spec.Verdict("run", "a task runs", defence_spec.State.UNTRIED, "too busy"),)
BROKEN = (*HOLDS, defence_spec.Verdict("network", "no network", defence_spec.State.BROKEN, "interfaces eth0"))


async def test_trials_and_what_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = room.Room(admission.Admission(node_parts.CAPACITY, 1))
    runs = SubprocessExecutor(store.Store(tmp_path))
    fit = fitness.Fitness(node_parts.WHATEVER, place, runs, None, lambda: fitness.Turnover(0, ()))
    verdicts: tuple[defence_spec.Verdict, ...] = HOLDS

    async def prove(_: object) -> tuple[defence_spec.Verdict, ...]:
        return verdicts

    monkeypatch.setattr(proving, "prove", prove)
    trials = defences.DefenceTrials(runs, fit)
    assert place.holds == {fitness.TRIAL: defences.UNTRIED}, "nothing is taken before the first"
    verdicts = SLOW
    await trials.try_now()
    assert place.holds == {fitness.TRIAL: defences.UNTRIED}, "it has proved nothing"
    verdicts = HOLDS
    await trials.try_now()
    assert place.holds == {}
    verdicts = SLOW
    for _ in range(defences.MAX_UNPROVED - 1):
        await trials.try_now()
        assert place.holds == {}, "what held a while ago holds on"
    await trials.try_now()
    assert "could not be tried" in place.holds[fitness.DEFENCES], "but not for ever"
    verdicts = BROKEN
    await trials.try_now()
    assert "no network: interfaces eth0" in place.holds[fitness.DEFENCES]
    await fit.look()
    assert fitness.DEFENCES in place.holds, "another look at the node does not forget it"
    fit.limits = dataclasses.replace(fit.limits, accepted_defences=frozenset({"network"}))
    await trials.try_now()
    assert place.holds == {}, "its owner does without"
