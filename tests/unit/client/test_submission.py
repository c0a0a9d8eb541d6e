"""Many tasks part into messages that the wire takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker import errors
from hivemind_worker.client import submission
from hivemind_worker.wire import calls


@given(st.lists(st.integers(0, submission.BATCH_BYTES - 1000), max_size=12))
def test_each_batch_fits_into_a_message_and_none_is_lost(sizes: list[int]) -> None:
    tasks = [calls.pb.Task(id=f"t{number}", code="x" * size) for number, size in enumerate(sizes)]
    parted = list(submission.batches(tasks))
    assert [task.id for batch in parted for task in batch] == [task.id for task in tasks]
    for batch in parted:
        assert calls.pb.SubmitTasksRequest(tasks=batch, idempotency_key="k" * 40).ByteSize() < calls.MESSAGE_BYTES


def test_no_batch_has_more_tasks_than_the_pool_likes() -> None:
    parted = list(submission.batches(calls.pb.Task(id=f"t{number}") for number in range(2500)))
    assert [len(batch) for batch in parted] == [1000, 1000, 500]


def test_a_task_too_large_for_any_message_is_refused() -> None:
    with pytest.raises(errors.InvalidTask, match="at most"):
        list(submission.batches([calls.pb.Task(code="x" * submission.BATCH_BYTES)]))
