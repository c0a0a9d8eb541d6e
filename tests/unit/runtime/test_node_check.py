"""What a node's check of itself proves, and how many trials that costs."""

from __future__ import annotations

import asyncio

import attempts
import pytest

from hivemind_worker import errors
from hivemind_worker.runtime import node_check, verdict
from hivemind_worker.tasks import outcome, plan

ASKED = plan.RunPlan("t", 1, "image:1", ("true",), attempts.LIMITS, attempts.CAPS, grace_seconds=1.0)
FAILED = outcome.Outcome(
    outcome.Status.FAILED,
    outcome.Reason.INTERNAL,
    error="it did not start",
    limits=attempts.LIMITS,
    node_check=outcome.NodeCheck.NOT_DONE,
)


def test_an_image_that_fails_twice_while_the_nodes_own_starts_is_to_blame() -> None:
    ended = node_check.blame_image(FAILED, "image:1")
    assert (ended.reason, ended.node_check) == (outcome.Reason.IMAGE_UNAVAILABLE, outcome.NodeCheck.PASSED)
    assert not ended.try_again
    assert "image image:1 cannot be started: it did not start" in ended.error
    assert "name another image" in ended.error


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (outcome.NodeCheck.PASSED, "the node itself is sound"),
        (outcome.NodeCheck.FAILED, "it is this node: a capsule of its own did not start either (no engine)"),
        (outcome.NodeCheck.NOT_DONE, ""),
    ],
)
def test_evidence_changes_no_reason(check: outcome.NodeCheck, words: str) -> None:
    ended = node_check.with_evidence(FAILED, check, "no engine")
    assert (ended.reason, ended.node_check) == (outcome.Reason.INTERNAL, check)
    assert words in ended.error


def test_only_what_the_nodes_own_capsule_has_too_can_prove_an_image_wrong() -> None:
    assert node_check.may_be_image(ASKED, isolation="docker")
    assert not node_check.may_be_image(ASKED, isolation="sandbox")
    gpu = plan.RunPlan("t", 1, "image:1", ("true",), attempts.LIMITS, attempts.CAPS, grace_seconds=1.0, gpus=1)
    assert not node_check.may_be_image(gpu, isolation="docker")


@pytest.mark.parametrize(
    ("reason", "check", "sick"),
    [
        (outcome.Reason.INTERNAL, outcome.NodeCheck.FAILED, True),
        (outcome.Reason.ENGINE_LOST, outcome.NodeCheck.NOT_DONE, True),
        (outcome.Reason.INTERNAL, outcome.NodeCheck.NOT_NEEDED, True),
        (outcome.Reason.INTERNAL, outcome.NodeCheck.PASSED, False),
        (outcome.Reason.IMAGE_UNAVAILABLE, outcome.NodeCheck.PASSED, False),
        (outcome.Reason.WORKER_CRASH, outcome.NodeCheck.NOT_NEEDED, False),
        (outcome.Reason.NODE_SHUTDOWN, outcome.NodeCheck.NOT_NEEDED, False),
        (None, outcome.NodeCheck.NOT_NEEDED, False),
    ],
)
def test_a_node_pauses_only_where_the_next_task_would_fail_too(
    reason: outcome.Reason | None, check: outcome.NodeCheck, *, sick: bool
) -> None:
    assert outcome.is_node_sick(reason, check) is sick


class _Trials:
    """Counts trials; each ends when it is told to."""

    def __init__(self) -> None:
        self.plans: list[plan.RunPlan] = []
        self.end = asyncio.Event()

    async def __call__(self, asked: plan.RunPlan) -> str:
        self.plans.append(asked)
        await self.end.wait()
        return "no engine"


async def test_failures_that_come_together_share_one_trial_and_a_cancelled_one_ends_it_for_nobody() -> None:
    trials = _Trials()
    check = node_check.NodeCheck(trials)
    waiting = [asyncio.create_task(check.fault(ASKED)) for _ in range(8)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    await asyncio.sleep(0)
    trials.end.set()
    assert await asyncio.gather(*waiting) == ["no engine"] * 7
    assert len(trials.plans) == 1
    await check.close()


async def test_a_trial_counts_only_for_failures_before_its_end_and_trials_are_an_interval_apart() -> None:
    trials = _Trials()
    trials.end.set()
    check = node_check.NodeCheck(trials, interval_seconds=0.05)
    began = asyncio.get_running_loop().time()
    for _ in range(3):
        await check.fault(ASKED)
    assert len(trials.plans) == 3
    assert asyncio.get_running_loop().time() - began >= 0.1
    await check.close()


def test_an_error_of_the_engine_is_unproven_and_one_of_the_plan_is_not() -> None:
    setting = verdict.Setting("docker", "default", "", attempts.LIMITS)
    for error in (errors.EngineLost("gone"), errors.CapsuleFault("no word"), FileNotFoundError("bwrap")):
        assert verdict.failed(setting, error, {}).node_check is outcome.NodeCheck.NOT_DONE
    for other in (ValueError("the plan"), errors.ImageUnavailable("none"), errors.DependencyFailed("none")):
        assert verdict.failed(setting, other, {}).node_check is outcome.NodeCheck.NOT_NEEDED
