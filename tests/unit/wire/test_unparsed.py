"""What a request takes in memory is known before it is parsed: by its bytes alone, whatever anybody sends."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.internal import encoder

from hivemind_worker import errors
from hivemind_worker.pool.api import coverage, requests
from hivemind_worker.wire import calls, free_form, unparsed

pb = calls.pb
MIB = 1024**2
KINDS = [method.input_type for service in pb.DESCRIPTOR.services_by_name.values() for method in service.methods]


def entry(number: int, content: bytes = b"") -> bytes:
    return bytes(encoder.TagBytes(number, 2)) + bytes(encoder._VarintBytes(len(content))) + content  # type: ignore[attr-defined]


def full(piece: bytes) -> bytes:
    return piece * ((calls.MESSAGE_BYTES - 64) // len(piece))


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    f"{kind.name}.{field.name}": (kind.name, functools.partial(full, entry(field.number)))
    for kind in KINDS
    for field in kind.fields
    if field.is_repeated and not (field.message_type and field.message_type.GetOptions().map_entry)
} | {
    "result files": ("ReportTaskResultRequest", lambda: entry(3, full(entry(9)))),
    "task arguments": ("SubmitTasksRequest", lambda: entry(1, full(entry(8)))),
    "lists in a list": ("SubmitTasksRequest", lambda: entry(1, entry(61, entry(6, full(entry(1, entry(6))))))),
}
"""Every list that a request has, full of nothing; each made when it is needed, for all take 100 MiB."""


@pytest.mark.parametrize("name", sorted(BOMBS))
async def test_a_list_full_of_nothing_is_refused_before_it_is_parsed(name: str) -> None:
    kind, make = BOMBS[name]
    with pytest.raises(errors.Rejected, match="for the number of its entries") as refused:
        await unparsed.parse(unparsed.Unparsed(getattr(pb, kind), make()))
    assert refused.value.reason == "TOO_LARGE"


LARGEST: dict[str, Callable[[], Any]] = {
    "10,000 tasks": lambda: pb.SubmitTasksRequest(
        tasks=[
            pb.Task(id=f"{n:06}", command="x" * 200, labels={"a": "b", "c": "d"}, cpu_quota=1, memory_limit="1g")
            for n in range(requests.TASKS_AT_ONCE)
        ]
    ),
    "40,000 sums": lambda: pb.FindArtifactsRequest(sha256=["a" * 64] * requests.SUMS_AT_ONCE),
    "10,000 attempts": lambda: pb.RegisterNodeRequest(
        held=[pb.AttemptRef(task_id="t" * 64, run_id="r" * 32)] * requests.HELD_AT_MOST
    ),
    "one large task": lambda: pb.SubmitTasksRequest(tasks=[pb.Task(command="x" * 3 * MIB)]),
    "100,000 numbers": lambda: pb.SubmitTasksRequest(tasks=[pb.Task(input_data=free_form.boxed([0.5] * 100_000))]),
    "a small one": lambda: pb.GetTaskRequest(task_id="t"),
}


@pytest.mark.parametrize("name", LARGEST)
async def test_the_largest_of_what_is_allowed_is_parsed_as_it_is(name: str) -> None:
    message = LARGEST[name]()
    data = message.SerializeToString()
    assert await unparsed.parse(unparsed.Unparsed(type(message), data)) == message
    assert unparsed.cost(type(message), data) <= unparsed.MAX_PARSED_BYTES


GARBLED = {
    "a length beyond the end": b"\n\x7f",
    "a number that does not end": b"\x08" + b"\xff" * 40_000,
    "a tag alone": entry(1, b"x" * 40_000) + b"\x0a",
    "a group": b"\x0b" * 40_000,
    "deeper than anybody goes": b"",
}


@pytest.mark.parametrize("name", GARBLED)
async def test_what_is_no_message_is_said_to_be_none(name: str) -> None:
    data = GARBLED[name] or nested(40_000)
    with pytest.raises(calls.Garbled):
        await unparsed.parse(unparsed.Unparsed(pb.SubmitTasksRequest, data))


def nested(size: int) -> bytes:
    data = b""
    for _ in range(200):
        data = entry(1, entry(6, data))
    return entry(1, entry(61, entry(6, data)) + entry(6, b"x" * size))


def test_a_value_is_written_where_it_belongs() -> None:
    value = {"a": [], "b": {}, "c": [1, 2.5, None, True, "x", [[], {"y": []}]]}
    assert free_form.plain(free_form.boxed(value)) == value
    with pytest.raises(TypeError, match="set"):
        free_form.boxed([{1}])


def test_many_small_values_take_little() -> None:
    """Each as a message of its own took 1,000 bytes: 230 MiB here."""
    program = (
        "import resource; from hivemind_worker.wire import free_form; values = [[] for _ in range(200_000)];"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; box = free_form.boxed(values);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)
    assert int(answer.stdout) < 40 * 1024


@pytest.mark.timeout(60)
def test_output_full_of_lines_that_look_like_a_cut_is_read_once() -> None:
    """For each such line all of the output was copied: 100,000 times 4 MiB."""
    line = "[hivemind: 1 bytes of stdout are not kept]\n"
    result = pb.TaskResult(logs=line * (3 * MIB // len(line)), stdout_bytes=2**40)
    assert coverage.reported(result).runs == ()
    cut = pb.TaskResult(logs=f"head\n{line.replace('1', '7')}tail", stdout_bytes=15)
    assert coverage.reported(cut).runs == ((0, b"head"), (11, b"tail"))
