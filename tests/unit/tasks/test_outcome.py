"""Outcomes cannot contradict themselves, and blame is complete."""

import pytest

from hivemind_worker.tasks import outcome


def test_every_reason_has_its_blame() -> None:
    assert set(outcome.FAULTS) == set(outcome.Reason)


@pytest.mark.parametrize("reason", list(outcome.Reason))
def test_only_the_nodes_faults_are_tried_again(reason: outcome.Reason) -> None:
    status = outcome.Status.CANCELLED if reason is outcome.Reason.CANCELLED else outcome.Status.FAILED
    expected = reason in {"engine_lost", "node_shutdown", "worker_crash", "internal"}
    assert outcome.Outcome(status, reason).try_again is expected


def test_completed_means_no_reason() -> None:
    assert not outcome.Outcome(outcome.Status.COMPLETED).try_again
    with pytest.raises(ValueError, match="completed exactly when"):
        outcome.Outcome(outcome.Status.COMPLETED, outcome.Reason.OOM)
    with pytest.raises(ValueError, match="completed exactly when"):
        outcome.Outcome(outcome.Status.FAILED)
