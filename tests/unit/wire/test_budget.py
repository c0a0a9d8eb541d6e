"""No message that our code makes is larger than the budget, however large its parts are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hivemind_worker.client import submission
from hivemind_worker.pool.api import following, live, requests, telling
from hivemind_worker.pool.matching import assignment
from hivemind_worker.pool.store import records
from hivemind_worker.runtime import results
from hivemind_worker.tasks import outcome, resources
from hivemind_worker.wire import budget, calls, translate
from hivemind_worker.wire.generated import nodepool_pb2 as pb

BUDGET = budget.MESSAGE_BUDGET
MIB = 1024**2
LIMIT = 256 * 1024
"""A smaller budget for most of the examples, and smaller parts with it: the rules are the same, and quicker to try."""

letters = st.sampled_from(["x", "\n", "é", "�", "🙂"])
sizes = st.sampled_from([0, 1, 300, 5_000, 130_000, 330_000])
counts = st.sampled_from([0, 1, 99, 101, 3_000])
# Each makes messages of megabytes.
few_examples = settings(
    max_examples=settings().max_examples // 3, deadline=None, suppress_health_check=list(HealthCheck)
)

RESULT = st.fixed_dictionaries(
    {
        "letter": letters,
        "logs": sizes,
        "error": sizes,
        "word": sizes,
        "name": st.sampled_from(["f", "a/long/name/" * 20, "🙂" * 50]),
        "files": counts,
        "skipped": counts,
        "flags": counts,
        "limits_hit": counts,
        "timings": counts,
        "inline": st.sampled_from([0, 1, 3, 50]),
        "inline_bytes": st.sampled_from([0, 1_000, 200_000]),
    }
)
"""How large the parts of a result are: what a node may send, and more than any message holds."""


def result_message(sizes: dict[str, Any]) -> pb.TaskResult:
    letter, name = sizes["letter"], sizes["name"]

    def text(size: int) -> str:
        return str(letter * (size // len(letter.encode())))

    files = range(sizes["files"])
    message = pb.TaskResult(
        status="failed",
        reason="internal",
        logs=text(sizes["logs"]),
        error=text(sizes["error"]),
        image_digest=text(sizes["word"]),
        isolation=text(sizes["word"]),
        runtime=text(sizes["word"]),
        files=[pb.ResultFile(name=f"{name}{n}", size=2**40, sha256="a" * 64, mode=0o777) for n in files],
        skipped=[pb.SkippedFile(name=f"{name}{n}", why="symlink") for n in range(sizes["skipped"])],
        flags=["output_truncated"] * sizes["flags"],
        limits_hit=[text(1_500)] * (sizes["limits_hit"] // 10),
    )
    for number in range(sizes["timings"] // 10):
        message.timings[f"{name}{number}"] = 1.0
    for number in range(sizes["inline"]):
        message.result_data[f"{name}{number}"] = bytes(sizes["inline_bytes"])
    return message


@given(RESULT, st.sampled_from([LIMIT, LIMIT // 2, budget.MIN_REPORT_BYTES]))
@few_examples
def test_a_report_fits_and_says_what_is_missing(sizes: dict[str, Any], limit: int) -> None:
    before = result_message(sizes)
    request = pb.ReportTaskResultRequest(
        task_id="t" * 64,
        node_id="n" * 128,
        session_id="s" * 64,
        store_epoch="e" * 32,
        run_id="r" * 32,
        attempt=2**31 - 1,
    )
    request.result.CopyFrom(before)
    cut = budget.fit_report(request, limit)
    assert request.ByteSize() <= limit
    assert cut == (request.result != before)
    after = request.result
    assert (after.status, after.reason) == (before.status, before.reason)
    flags = set(after.flags)
    if after.logs != before.logs:
        assert "output_truncated" in flags
        assert not after.logs or "left out here" in after.logs
    lost = len(after.files) < len(before.files) or len(after.result_data) < len(before.result_data)
    if lost or len(after.skipped) < len(before.skipped):
        assert "results_truncated" in flags
    assert list(after.files) == list(before.files)[: len(after.files)]
    assert set(after.flags) <= {str(flag) for flag in outcome.Flag} | set(before.flags)
    if cut:
        translate.outcome_from_message(after)  # the other end can read it


@given(RESULT, sizes, counts, st.integers(0, 16))
@few_examples
def test_what_is_told_of_a_task_fits_in_every_message_that_tells_it(
    sizes: dict[str, Any], words: int, events: int, labels: int
) -> None:
    event = pb.TaskEvent(at=1.0, event="assigned", node_id="n" * 128, details="d" * min(words, 10_000))
    info = pb.TaskInfo(
        id="t" * 64,
        waiting_because="w" * words,
        phase="p" * words,
        traceparent="0" * 55,
        labels={f"{n:060}": "v" * 250 for n in range(labels)},
        story=[event] * (events // 10),
    )
    info.result.CopyFrom(result_message(sizes))
    for number, told in enumerate(info.story):
        told.attempt = number
    last = len(info.story) - 1
    limit = 2 * LIMIT  # a quarter of a MiB is the story's alone
    cut = budget.fit_task(info, limit - 100)
    assert cut == info.truncated
    for answer in (
        pb.GetTaskResponse(task=info),
        pb.WatchTasksResponse(task=info),
        pb.ListTasksResponse(tasks=[info], next_page_token="9" * 18),
    ):
        assert answer.ByteSize() <= limit
    if info.story:
        assert (info.story[0].attempt, info.story[-1].attempt) == (0, last)


@pytest.mark.parametrize("logs", [b"", b"\xff" * MIB, b"\xff" * 6 * MIB, b"x" * 16 * MIB], ids=len)
@pytest.mark.parametrize("length", [1, 113, results.NAME_BYTES])
def test_of_an_end_as_a_node_makes_it_every_file_is_named(logs: bytes, length: int) -> None:
    """The largest that a receiver and an executor let through."""
    name = "n" * length
    cost = len(name) + 6 + results.FILE_COST_BYTES
    ended = outcome.Outcome(
        outcome.Status.FAILED,
        outcome.Reason.NONZERO_EXIT,
        exit_code=1,
        error="e" * MIB,
        logs=outcome.Logs(logs, 2**60, 2**60),
        results=tuple(
            outcome.ResultFile(f"{name}{n:06}", outcome.Artifact("a" * 64, 2**50), 0o777)
            for n in range(results.NAMES_BYTES // cost)
        ),
        skipped=tuple(outcome.SkippedFile("é" * 200, "over cap: count") for _ in range(results.SKIPS + 1)),
    )
    message = translate.outcome_to_message(ended)
    budget.fit_result(message)
    assert message.ByteSize() <= BUDGET
    assert len(message.files) == len(ended.results)


def refs(count: int, phase: str, usage: bool) -> list[pb.AttemptRef]:
    made = pb.AttemptRef(task_id="t" * 64, attempt=2**31 - 1, phase=phase, store_epoch="e" * 32, run_id="r" * 32)
    if usage:
        made.usage.CopyFrom(pb.Usage(wall_seconds=1.0, cpu_seconds=2.0, peak_memory_bytes=2**60, read_bytes=2**60))
    return [made] * count


@pytest.mark.parametrize("count", [0, 256, requests.HELD_AT_MOST])
@pytest.mark.parametrize("words", ["", "é" * 500])
@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("more", [0, 101, 5_000])
def test_what_a_node_says_fits_and_names_every_attempt_that_it_holds(
    count: int,
    words: str,
    usage: bool,
    more: int,
) -> None:
    held = refs(count, words, usage)
    for request in (
        pb.RegisterNodeRequest(node_id="n", held=held, capabilities=[words] * (more // 10)),
        pb.UpdateNodeStatusRequest(node_id="n", held=held, message=words * more),
        pb.GetAssignedTasksRequest(node_id="n", held=held, images=[words] * more),
    ):
        budget.fit_held(request)
        assert request.ByteSize() <= BUDGET
        assert len(request.held) == count


@pytest.mark.parametrize("drop", [0, 1, 30_000])
@pytest.mark.parametrize("cancel", [0, 1, 30_000])
def test_what_a_node_is_answered_fits(drop: int, cancel: int) -> None:
    for answer in (
        pb.RegisterNodeResponse(success=True, drop=refs(drop, "", False)),
        pb.UpdateNodeStatusResponse(success=True, drop=refs(drop, "", False), cancel=refs(cancel, "", False)),
        pb.GetAssignedTasksResponse(
            success=True, tasks=[pb.Task(code="x" * (requests.TASK_BYTES - 8))], cancel=refs(cancel, "", False)
        ),
    ):
        for field in ("drop", "cancel"):
            if hasattr(answer, field):
                budget.drop_last(answer, field)
        assert answer.ByteSize() <= BUDGET


def test_a_task_of_the_largest_size_can_be_handed_out() -> None:
    body = pb.Task(code="x" * (requests.TASK_BYTES - 8)).SerializeToString()
    assert len(body) <= requests.TASK_BYTES
    task = pb.Task.FromString(body)
    task.id, task.attempt, task.lease_seconds, task.store_epoch = "t" * 64, 2**31 - 1, 60.0, "e" * 32
    task.traceparent = "0" * 55
    assert pb.GetAssignedTasksResponse(success=True, tasks=[task]).ByteSize() <= BUDGET
    assert pb.SubmitTasksRequest(tasks=[task], idempotency_key="k" * 200).ByteSize() <= BUDGET
    assert assignment.ANSWER_BYTES + requests.TASKS_PER_ANSWER * 300 <= BUDGET
    assert submission.BATCH_BYTES <= requests.TASK_BYTES


@pytest.mark.parametrize("words", ["", "é" * 500])
@pytest.mark.parametrize(("attempts", "readings", "capabilities"), [(0, 0, 0), (10_000, 0, 5), (3, 1_000, 1_000)])
def test_what_is_told_of_a_node_fits_into_a_page(words: str, attempts: int, readings: int, capabilities: int) -> None:
    node = records.Node(
        node_id="n" * 128,
        session_id="s",
        capacity=resources.Resources(),
        labels={f"{n}": words for n in range(16)},
        capabilities=(words,) * capabilities,
        status=words,
        version=words,
        message=words,
        readings={f"{words}{n}": 1.0 for n in range(min(readings, 1_000))},
        attempts=tuple(records.Ref("t" * 64, n) for n in range(min(attempts, 10_000))),
    )
    info = telling.node(node, live.Live())
    taken = budget.page([info] * 3)
    assert pb.ListNodesResponse(nodes=taken, next_page_token="n" * 128).ByteSize() <= BUDGET
    assert taken


@pytest.mark.parametrize("length", [1, 200, 1_024])
@pytest.mark.parametrize("count", [0, 1, 30_000])
def test_pages_of_names_fit_and_leave_none_out(length: int, count: int) -> None:
    files = [pb.ResultFile(name="n" * length, size=2**40, sha256="a" * 64, mode=0o777)] * count
    seen = 0
    while seen < count:
        taken = budget.page(files[seen:])
        assert pb.ListResultsResponse(files=taken, next_page_token="9" * 18).ByteSize() <= BUDGET
        seen += len(taken)
    assert seen == count


LARGEST: dict[str, Callable[[], Any]] = {
    # Lists of ids and sums, bounded by `requests`.
    "SubmitTasksResponse": lambda: pb.SubmitTasksResponse(task_ids=["t" * 64] * requests.TASKS_AT_ONCE),
    "WatchTasksRequest": lambda: pb.WatchTasksRequest(task_ids=["t" * 64] * requests.TASKS_AT_ONCE),
    "CancelTasksRequest": lambda: pb.CancelTasksRequest(task_ids=["t" * 64] * requests.TASKS_AT_ONCE),
    "CancelTasksResponse": lambda: pb.CancelTasksResponse(states=["completed"] * requests.TASKS_AT_ONCE),
    "RetryTasksRequest": lambda: pb.RetryTasksRequest(task_ids=["t" * 64] * requests.TASKS_AT_ONCE),
    "RetryTasksResponse": lambda: pb.RetryTasksResponse(new_task_ids=["t" * 64] * requests.TASKS_AT_ONCE),
    "FindArtifactsRequest": lambda: pb.FindArtifactsRequest(sha256=["a" * 64] * requests.SUMS_AT_ONCE),
    "FindArtifactsResponse": lambda: pb.FindArtifactsResponse(
        artifacts=[pb.ArtifactState(sha256="a" * 64, stored_bytes=2**62, complete=True)] * requests.SUMS_AT_ONCE
    ),
    # Chunks of files and of output.
    "UploadArtifactRequest": lambda: pb.UploadArtifactRequest(data=bytes(calls.CHUNK_BYTES), sha256="a" * 64),
    "UploadInputRequest": lambda: pb.UploadInputRequest(data=bytes(calls.CHUNK_BYTES), sha256="a" * 64),
    "DownloadArtifactResponse": lambda: pb.DownloadArtifactResponse(data=bytes(calls.CHUNK_BYTES)),
    "DownloadResultResponse": lambda: pb.DownloadResultResponse(data=bytes(calls.CHUNK_BYTES), sha256="a" * 64),
    "AppendTaskLogsRequest": lambda: pb.AppendTaskLogsRequest(
        chunks=[pb.LogChunk(data=bytes(calls.CHUNK_BYTES), sequence=2**62, offset=2**62)] * 2
    ),
    "GetTaskLogsResponse": lambda: pb.GetTaskLogsResponse(
        chunks=budget.page(
            [pb.LogChunk(data=b"x", sequence=2**62, offset=2**62, stream=pb.LOG_STREAM_STDERR)] * 300_000,
            following.PAGE_BYTES + calls.CHUNK_BYTES,
        )
    ),
    "ListTasksResponse": lambda: pb.ListTasksResponse(
        tasks=budget.page([pb.TaskInfo(id="t" * 64)] * 50_000, requests.PAGE_BYTES)
    ),
}

FITTED = {
    "ReportTaskResultRequest", "RegisterNodeRequest", "UpdateNodeStatusRequest", "GetAssignedTasksRequest",
    "RegisterNodeResponse", "UpdateNodeStatusResponse", "GetAssignedTasksResponse", "SubmitTasksRequest",
    "GetTaskResponse", "WatchTasksResponse", "ListResultsResponse", "ListNodesResponse",
}  # fmt: skip
"""Those of the properties above."""

SMALL = {
    "ReportTaskResultResponse", "PingRequest", "PingResponse", "AppendTaskLogsResponse", "UploadArtifactResponse",
    "DownloadArtifactRequest", "GetTaskRequest", "ListTasksRequest", "GetTaskLogsRequest", "ListResultsRequest",
    "DownloadResultRequest", "UploadInputResponse", "ListNodesRequest", "DrainNodeRequest", "DrainNodeResponse",
    "ResumeNodeRequest", "ResumeNodeResponse", "GetPoolInfoRequest", "GetPoolInfoResponse",
}  # fmt: skip
"""A few short words and numbers."""


@pytest.mark.parametrize("name", sorted(LARGEST))
def test_the_largest_of_each_bounded_message_fits(name: str) -> None:
    assert LARGEST[name]().ByteSize() <= BUDGET


def test_every_message_of_the_protocol_is_in_one_of_these_lists() -> None:
    services = pb.DESCRIPTOR.services_by_name.values()
    there = {
        kind.name for service in services for call in service.methods for kind in (call.input_type, call.output_type)
    }
    listed = [*LARGEST, *FITTED, *SMALL]
    assert sorted(listed) == sorted(there), "a new message needs its budget: see wire/budget.py"
