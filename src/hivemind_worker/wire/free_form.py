"""The fields of ml and data_processing tasks on the wire: plain ones, and values of any JSON form."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2

from hivemind_worker.tasks import learning, processing, spec
from hivemind_worker.wire.generated import nodepool_pb2 as pb

# Fields that may be 0 and yet be said.
_OPTIONAL = frozenset({"test_size", "seed"})


_FIELDS = learning.FIELDS | processing.FIELDS


def said(fields: Mapping[str, Any]) -> dict[str, object]:
    """Return what those of a message's fields that are set say in these, as a task file would say it."""
    found: dict[str, object] = {}
    for name in fields.keys() & _FIELDS:
        value = fields[name]
        if isinstance(value, struct_pb2.Value | struct_pb2.Struct):
            found[name] = plain(value)
        elif name == "steps":
            found[name] = tuple(plain(step) for step in value)
        elif isinstance(value, str | int | float):
            found[name] = value
        else:
            found[name] = dict(value) if isinstance(value, Mapping) else tuple(value)
    return found


def write(task: spec.TaskSpec, message: pb.Task) -> None:
    """Write these fields of a task into its message."""
    for part in (task.learning, task.processing):
        if part is None:
            continue
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if value is not None and (value or field.name in _OPTIONAL):
                _set(message, field.name, value)


def _set(message: pb.Task, name: str, value: Any) -> None:
    there = getattr(message, name)
    if isinstance(there, struct_pb2.Value):
        there.CopyFrom(boxed(value))
    elif isinstance(there, struct_pb2.Struct):
        there.CopyFrom(boxed(value).struct_value)
    elif name == "steps":
        there.extend(boxed(step).struct_value for step in value)
    elif isinstance(there, str | int | float):
        setattr(message, name, value)
    elif isinstance(value, Mapping):
        there.update(value)
    else:
        there.extend(value)


def plain(value: struct_pb2.Value | struct_pb2.Struct) -> Any:
    """Return a JSON value as Python has it; whole numbers as int, since the wire knows no other than doubles."""
    if isinstance(value, struct_pb2.Struct):
        return {name: plain(each) for name, each in value.fields.items()}
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return plain(value.struct_value)
    if kind == "list_value":
        return [plain(each) for each in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return None if kind in {None, "null_value"} else getattr(value, kind)


def boxed(value: Any) -> struct_pb2.Value:
    """Return a Python value as the wire's. Raises TypeError for what JSON does not know."""
    box = struct_pb2.Value()
    _fill(box, value)
    return box


def _fill(box: struct_pb2.Value, value: Any) -> None:
    """Write a value where it belongs: a message made apart takes 1,000 bytes, and there may be 200,000 of them."""
    if value is None:
        box.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        box.bool_value = value
    elif isinstance(value, int | float):
        box.number_value = value
    elif isinstance(value, str):
        box.string_value = value
    elif isinstance(value, Mapping):
        box.struct_value.SetInParent()
        for name, each in value.items():
            _fill(box.struct_value.fields[name], each)
    elif isinstance(value, list | tuple):
        box.list_value.SetInParent()
        for each in value:
            _fill(box.list_value.values.add(), each)
    else:
        raise TypeError(f"{type(value).__name__} is nothing that JSON knows")
