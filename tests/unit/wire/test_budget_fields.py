"""Whichever field of a message is large, it is cut to fit: each is found in the descriptors, also a new one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hivemind_worker.wire import budget
from hivemind_worker.wire.generated import nodepool_pb2 as pb

BUDGET = budget.MESSAGE_BUDGET
MIB = 1024**2

FITTERS: dict[str, tuple[type[Any], Callable[[Any], object]]] = {
    "ReportTaskResultRequest": (pb.ReportTaskResultRequest, budget.fit_report),
    "TaskInfo": (pb.TaskInfo, budget.fit_task),
    "NodeInfo": (pb.NodeInfo, budget.fit_node),
    "RegisterNodeRequest": (pb.RegisterNodeRequest, budget.fit_held),
    "UpdateNodeStatusRequest": (pb.UpdateNodeStatusRequest, budget.fit_held),
    "GetAssignedTasksRequest": (pb.GetAssignedTasksRequest, budget.fit_held),
}

BOUNDED = {
    "ids and marks, by `requests` and `names`": {
        "ReportTaskResultRequest.task_id", "ReportTaskResultRequest.node_id", "ReportTaskResultRequest.status",
        "ReportTaskResultRequest.session_id", "ReportTaskResultRequest.store_epoch", "ReportTaskResultRequest.run_id",
        "TaskInfo.id", "TaskInfo.state", "NodeInfo.node_id", "NodeInfo.labels",
        "RegisterNodeRequest.node_id", "RegisterNodeRequest.boot_id", "RegisterNodeRequest.state_lock_id",
        "RegisterNodeRequest.former_state_lock_ids",
        "RegisterNodeRequest.ip_address", "RegisterNodeRequest.version", "RegisterNodeRequest.labels",
        "UpdateNodeStatusRequest.node_id", "UpdateNodeStatusRequest.session_id", "UpdateNodeStatusRequest.status",
        "GetAssignedTasksRequest.node_id", "GetAssignedTasksRequest.session_id",
    },
    "attempts, of which none may be left out: see `requests.HELD_AT_MOST`": {
        "RegisterNodeRequest.held", "UpdateNodeStatusRequest.held", "GetAssignedTasksRequest.held",
    },
}  # fmt: skip
"""What no stranger makes large."""


def growable(kind: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths to every field of a message that may be of any size; not into messages that are repeated."""
    found = []
    for field in kind.DESCRIPTOR.fields if hasattr(kind, "DESCRIPTOR") else kind.fields:
        here = (*path, field.name)
        if field.is_repeated or field.type in (field.TYPE_STRING, field.TYPE_BYTES):
            found.append(here)
        elif field.message_type is not None:
            found += growable(field.message_type, here)
    return found


GROWN = [
    (name, path)
    for name, (kind, _) in FITTERS.items()
    for path in growable(kind)
    if not any(f"{name}.{path[0]}" in names for names in BOUNDED.values())
]


def grow(message: Any, path: tuple[str, ...], letters: str, count: int) -> None:
    """Make one field larger than any message."""
    for name in path[:-1]:
        message = getattr(message, name)
    field = message.DESCRIPTOR.fields_by_name[path[-1]]
    text = letters * (5 * MIB // len(letters.encode()) // count)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        entries = getattr(message, field.name)
        for number in range(count):
            content = {value.TYPE_STRING: "v", value.TYPE_BYTES: b"v" * 9}.get(value.type, 1)
            entries[f"{number:06}{text}"] = content
    elif field.message_type is not None:
        for _ in range(count):
            entry = getattr(message, field.name).add()
            for inner in field.message_type.fields:
                if inner.type == inner.TYPE_STRING:
                    setattr(entry, inner.name, text)
    elif field.is_repeated:
        getattr(message, field.name).extend([text] * count)
    else:
        setattr(message, field.name, text if field.type == field.TYPE_STRING else text.encode())


@pytest.mark.parametrize("count", [1, 5_000])
@pytest.mark.parametrize("letters", [pytest.param("x", marks=pytest.mark.long), "x🙂é"], ids=["ascii", "all lengths"])
@pytest.mark.parametrize(
    ("name", "path"), GROWN, ids=lambda value: value if isinstance(value, str) else ".".join(value)
)
def test_whichever_field_is_large_the_message_fits_and_can_be_read(
    name: str, path: tuple[str, ...], letters: str, count: int
) -> None:
    kind, fit = FITTERS[name]
    message = kind()
    grow(message, path, letters, count)
    large = message.ByteSize() > BUDGET
    assert fit(message) == large
    assert message.ByteSize() <= BUDGET
    read = kind.FromString(message.SerializeToString())  # no character was cut in two
    assert read == message
    if large and hasattr(message, "truncated"):
        assert message.truncated
    if large and path[0] == "result" and path[-1] in ("logs", "files", "result_data", "skipped"):
        flags = {"output_truncated", "results_truncated"} & set(message.result.flags)
        assert flags or all("left out here" in skipped.name for skipped in message.result.skipped)


def test_every_message_that_is_cut_is_among_those_that_are_tried() -> None:
    there = {f"{name}.{field.name}" for name, (kind, _) in FITTERS.items() for field in kind.DESCRIPTOR.fields}
    assert set().union(*BOUNDED.values()) <= there
