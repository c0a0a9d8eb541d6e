"""The JSON forms that scripts rely on: always the same keys."""

import json

import pytest

from hivemind_worker import errors
from hivemind_worker.client import shapes
from hivemind_worker.tasks import outcome, state
from hivemind_worker.wire import calls, translate

TASK_KEYS = [
    *("id", "type", "status", "reason", "exit_code", "signal", "attempt", "disruptions", "node_id", "image_digest"),
    *("isolation", "node_check", "limits", "limits_hit", "flags", "usage", "timings", "results", "skipped", "error"),
    "truncated",
]


def _ended(ended: outcome.Outcome) -> shapes.Task:
    message = calls.pb.TaskInfo(id="t", type="command", state=str(ended.status), attempt=1, node_id="n")
    message.result.CopyFrom(translate.outcome_to_message(ended))
    return shapes.task_from(message)


def test_a_task_that_waits_has_all_keys() -> None:
    said = shapes.task_from(calls.pb.TaskInfo(id="t", type="python", state="queued")).as_json()
    assert list(said) == TASK_KEYS
    assert said["status"] == "queued"
    assert said["exit_code"] is None
    assert said["results"] == []


def test_a_task_that_ended_has_all_keys_and_its_values() -> None:
    task = _ended(
        outcome.Outcome(
            status=outcome.Status.FAILED,
            reason=outcome.Reason.OOM,
            exit_code=137,
            signal=9,
            error="it ran out of memory",
            results=(outcome.ResultFile("a/b", outcome.Artifact("0" * 64, 3)),),
            flags=frozenset({outcome.Flag.LIMITS_HIT}),
            limits_hit=("memory",),
            usage=outcome.Usage(wall_seconds=1.5, peak_memory_bytes=7),
            limits=outcome.Limits(1, 2, 3.0, 4, 5),
            isolation="docker",
            timings={"running": 1.5},
        )
    )
    said = json.loads(json.dumps(task.as_json()))
    assert list(said) == TASK_KEYS
    assert said["reason"] == "oom"
    assert (said["exit_code"], said["signal"], said["flags"]) == (137, 9, ["limits_hit"])
    assert said["results"] == [{"name": "a/b", "size": 3, "sha256": "0" * 64}]
    assert said["limits"] == {"memory_bytes": 1, "cpu_quota": 2, "timeout_seconds": 3.0, "disk_bytes": 4, "pids": 5}
    assert said["usage"]["cpu_seconds"] is None
    assert task.ended


@pytest.mark.parametrize("ended", sorted(state.ENDED))
def test_an_end_without_a_report_can_be_read(ended: state.TaskState) -> None:
    task = shapes.task_from(calls.pb.TaskInfo(id="t", state=str(ended)))
    assert task.ended
    assert list(task.as_json()) == TASK_KEYS


def test_a_state_of_another_world_is_refused() -> None:
    with pytest.raises(errors.Rejected, match="no state"):
        shapes.task_from(calls.pb.TaskInfo(id="t", state="dreaming"))


def test_a_node_has_its_keys() -> None:
    message = calls.pb.NodeInfo(node_id="n", status="idle", attempts=[calls.pb.AttemptRef(task_id="t", attempt=2)])
    said = shapes.node_from(message).as_json()
    assert list(said) == ["node_id", "status", "capacity", "free", "attempts", "message", "readings", "truncated"]
    assert said["status"] == "idle"
    assert said["attempts"] == [{"task_id": "t", "attempt": 2, "phase": "", "usage": {}}]
    assert list(said["capacity"]) == ["cpu_cores", "memory_bytes", "disk_bytes", "gpus"]


def test_a_node_that_is_given_nothing_says_so() -> None:
    message = calls.pb.NodeInfo(node_id="n", status="idle", draining=True)
    assert shapes.node_from(message).as_json()["status"] == "draining"
