"""The table of exit codes, whole: every reason and every error of ours has its code."""

import pytest

from hivemind_worker import errors
from hivemind_worker.cli import exit_codes
from hivemind_worker.client import shapes
from hivemind_worker.tasks import outcome, state

REASONS = {
    "nonzero_exit": 3,
    "timeout": 124,
    "cancelled": 130,
    "oom": 137,
    "pids_limit": 3,
    "disk_limit": 3,
    "results_rejected": 1,
    "invalid_task": 2,
    "image_unavailable": 125,
    "dependency_failed": 126,
    "engine_lost": 125,
    "node_shutdown": 75,
    "worker_crash": 125,
    "internal": 125,
}


def _task(reason: outcome.Reason, exit_code: int | None) -> shapes.Task:
    status = outcome.Status.CANCELLED if reason is outcome.Reason.CANCELLED else outcome.Status.FAILED
    ended = outcome.Outcome(status=status, reason=reason, exit_code=exit_code)
    return shapes.Task("t", "command", state.TaskState(str(status)), result=ended)


@pytest.mark.parametrize("reason", list(outcome.Reason))
def test_every_reason_has_its_code(reason: outcome.Reason) -> None:
    assert exit_codes.of_task(_task(reason, 3)) == REASONS[str(reason)]


@pytest.mark.parametrize("exit_code", [126, 127, 137, 143, 1, 255])
def test_a_task_s_own_code_is_passed_on(exit_code: int) -> None:
    assert exit_codes.of_task(_task(outcome.Reason.NONZERO_EXIT, exit_code)) == exit_code


@pytest.mark.parametrize("exit_code", [0, None])
@pytest.mark.parametrize("reason", list(outcome.Reason))
def test_a_failure_is_never_0(reason: outcome.Reason, exit_code: int | None) -> None:
    assert exit_codes.of_task(_task(reason, exit_code)) != 0


def test_completed_is_0_and_not_yet_is_try_later() -> None:
    done = shapes.Task("t", "command", state.TaskState.COMPLETED, result=outcome.Outcome(outcome.Status.COMPLETED))
    assert exit_codes.of_task(done) == 0
    assert exit_codes.of_task(shapes.Task("t", "command", state.TaskState.RUNNING)) == 75
    failed = _task(outcome.Reason.NONZERO_EXIT, 3)
    assert exit_codes.of_tasks((done, done)) == 0
    assert exit_codes.of_tasks((done, failed)) == 1
    assert exit_codes.of_tasks((failed,)) == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadSettings("x"), 78),
        (errors.IsolationMissing("x"), 69),
        (errors.Unavailable("x"), 69),
        (errors.StateInUse("x"), 75),
        (errors.InvalidTask("a", "b"), 2),
        (errors.NoSuchTask("t"), 1),
        (errors.Conflict("x"), 1),
        (errors.Rejected("x"), 1),
        (errors.EngineLost("x"), 125),
        (errors.ImageUnavailable("x"), 125),
        (TimeoutError("x"), 75),
        (KeyboardInterrupt(), 130),
        (RuntimeError("x"), 1),
    ],
)
def test_errors_have_their_codes(error: BaseException, code: int) -> None:
    assert exit_codes.of_error(error) == code
