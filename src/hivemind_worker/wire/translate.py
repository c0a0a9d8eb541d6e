"""Messages ↔ the words of `task`: nothing else knows both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from google.protobuf import message as protobuf

from hivemind_worker import errors, units
from hivemind_worker.tasks import outcome, resources, spec
from hivemind_worker.wire import free_form
from hivemind_worker.wire.generated import nodepool_pb2 as pb

M = TypeVar("M", bound=protobuf.Message)


def parsed(kind: type[M], data: bytes) -> M:
    """Read a message that was kept as bytes. Raises ValueError where they are none."""
    try:
        return kind.FromString(data)
    except protobuf.DecodeError as error:
        raise ValueError(f"no {kind.__name__}: {error}") from None


def task_from_message(message: pb.Task) -> spec.TaskSpec:
    """Read a task from the wire with the same checks as one from a file.

    Raises :class:`errors.InvalidTask`.
    """
    # A field without presence says nothing by zero, and -0.0 is there nevertheless.
    fields = {field.name: value for field, value in message.ListFields() if value != 0 or field.has_presence}
    values = {name: read(fields[name]) for name, read in _READERS.items() if name in fields}
    if "argv" in fields:
        if "command" in values:
            raise errors.InvalidTask("command", "both the string and the list are set; a task has one command")
        values["command"] = tuple(fields["argv"])
    values |= free_form.said(fields)
    if missing := sorted(set(message.secret_names) - message.secrets.keys()):
        raise errors.InvalidTask(
            f"secrets[{missing[0][:60]!r}]",
            "its value is lost: the key that it was kept under is another by now; submit the task again",
        )
    if "input_artifacts" in fields:
        values["input_files"] = _with_artifacts(values.get("input_files", {}), fields["input_artifacts"])
    return spec.parse(values)


def _same(value: Any) -> object:
    return value


def _amounts(wants: pb.RequiredResources) -> dict[str, object]:
    return {name: getattr(wants, name) for name in ("cpu_cores", "memory_gb", "disk_gb", "gpus")}


_READERS: Mapping[str, Callable[[Any], object]] = {
    **dict.fromkeys(("id", "type", "docker_image", "command", "code", "memory_limit", "disk_limit", "network"), _same),
    **dict.fromkeys(("timeout", "cpu_quota", "pids_limit", "priority", "max_attempts"), _same),
    **dict.fromkeys(("requirements", "args"), tuple),
    **dict.fromkeys(("environment", "secrets", "labels", "node_selector", "input_files"), dict),
    "required_resources": _amounts,
}
"""How each field of a message becomes what a task file would say; `free_form` has the others."""


def _with_artifacts(inline: Any, artifacts: Mapping[str, pb.ArtifactRef]) -> dict[str, object]:
    files: dict[str, object] = dict(inline)
    for path, ref in artifacts.items():
        if path in files:
            raise errors.InvalidTask("input_files", f"{path[:60]!r} is given twice")
        files[path] = {"sha256": ref.sha256, "size": ref.size}
    return files


def task_to_message(task: spec.TaskSpec) -> pb.Task:
    """Write a task for the wire; what it does not say stays unset."""
    message = pb.Task(
        id=task.id or "",
        type=task.kind,
        docker_image=task.docker_image or "",
        code=task.code or "",
        requirements=task.requirements,
        args=task.args,
        environment=task.environment,
        secrets=task.secrets,
        memory_limit=str(task.memory_limit or ""),
        cpu_quota=task.cpu_quota or 0,
        timeout=task.timeout or 0.0,
        disk_limit=str(task.disk_limit or ""),
        pids_limit=task.pids_limit or 0,
        network=str(task.network),
        priority=task.priority,
        max_attempts=task.max_attempts or 0,
        labels=task.labels,
        node_selector=task.node_selector,
    )
    free_form.write(task, message)
    if isinstance(task.command, str):
        message.command = task.command
    elif task.command is not None:
        message.argv.extend(task.command)
    for path, content in task.input_files.items():
        if isinstance(content, bytes):
            message.input_files[path] = content
        else:
            message.input_artifacts[path].sha256 = content.sha256
            message.input_artifacts[path].size = content.size
    if task.required != resources.Resources():
        message.required_resources.CopyFrom(
            pb.RequiredResources(
                cpu_cores=task.required.cpu_cores,
                memory_gb=task.required.memory_bytes / units.GIB,
                disk_gb=task.required.disk_bytes / units.GIB,
                gpus=task.required.gpus,
            )
        )
    return message


def outcome_to_message(ended: outcome.Outcome) -> pb.TaskResult:
    """Write an outcome for the wire. Result files are named, not carried."""
    message = pb.TaskResult(
        status=str(ended.status),
        exit_code=ended.exit_code or 0,
        has_exit_code=ended.exit_code is not None,
        logs=ended.logs.text.decode("utf-8", "replace"),
        error=_printable(ended.error),
        reason=str(ended.reason or ""),
        signal=ended.signal or 0,
        files=[file_to_message(file) for file in ended.results],
        skipped=[pb.SkippedFile(name=_printable(skipped.name), why=skipped.why) for skipped in ended.skipped],
        flags=sorted(str(flag) for flag in ended.flags),
        limits_hit=ended.limits_hit,
        usage=_usage_to_message(ended.usage),
        image_digest=ended.image_digest,
        isolation=ended.isolation,
        runtime=ended.runtime,
        timings=ended.timings,
        stdout_bytes=ended.logs.stdout_bytes,
        stderr_bytes=ended.logs.stderr_bytes,
        node_check="" if ended.node_check is outcome.NodeCheck.NOT_NEEDED else str(ended.node_check),
    )
    if ended.limits is not None:
        message.limits.CopyFrom(
            pb.Limits(
                memory_bytes=ended.limits.memory_bytes,
                cpu_quota=ended.limits.cpu_quota,
                timeout_seconds=ended.limits.timeout_seconds,
                disk_bytes=ended.limits.disk_bytes,
                pids=ended.limits.pids,
            )
        )
    return message


def outcome_from_message(message: pb.TaskResult, status: str = "", *, whole: bool = True) -> outcome.Outcome:
    """Read an outcome from the wire, also one with the reference's five fields alone.

    ``status`` is the report's own, for a result that leaves its own out. Not ``whole``: how it ended, and within
    which limits. Its output may take 16 MiB as text, of a message of 4; for its files see `artifacts`.

    Raises :class:`errors.Rejected` where the message contradicts itself or uses a word that is in no list.
    """
    try:
        ended_as = outcome.Status(message.status or status)
        reason = _reason(message, ended_as)
        flags = frozenset(outcome.Flag(flag) for flag in message.flags)
        if not whole:
            limits = _limits_from_message(message.limits) if message.HasField("limits") else None
            check = _node_check(message)
            return outcome.Outcome(ended_as, reason, error=message.error, flags=flags, limits=limits, node_check=check)
        return _outcome(message, ended_as, reason, flags)
    except ValueError as error:
        raise errors.Rejected(f"the report cannot be read: {error}") from None


def _outcome(
    message: pb.TaskResult,
    ended_as: outcome.Status,
    reason: outcome.Reason | None,
    flags: frozenset[outcome.Flag],
) -> outcome.Outcome:
    known = message.has_exit_code or message.exit_code != 0 or ended_as is outcome.Status.COMPLETED
    return outcome.Outcome(
        status=ended_as,
        reason=reason,
        exit_code=message.exit_code if known else None,
        signal=message.signal or None,
        error=message.error,
        logs=outcome.Logs(message.logs.encode(), message.stdout_bytes, message.stderr_bytes),
        results=tuple(file_from_message(file) for file in message.files),
        skipped=tuple(outcome.SkippedFile(skipped.name, skipped.why) for skipped in message.skipped),
        flags=flags,
        limits_hit=tuple(message.limits_hit),
        usage=_usage_from_message(message.usage),
        limits=_limits_from_message(message.limits) if message.HasField("limits") else None,
        image_digest=message.image_digest,
        isolation=message.isolation,
        runtime=message.runtime,
        timings=dict(message.timings),
        node_check=_node_check(message),
    )


def _node_check(message: pb.TaskResult) -> outcome.NodeCheck:
    return outcome.NodeCheck(message.node_check or outcome.NodeCheck.NOT_NEEDED)


def _reason(message: pb.TaskResult, status: outcome.Status) -> outcome.Reason | None:
    if message.reason:
        return outcome.Reason(message.reason)
    if status is outcome.Status.COMPLETED:
        return None
    if status is outcome.Status.CANCELLED:
        return outcome.Reason.CANCELLED
    # The reference's dict has no reason: an exit code tells that the task ran, its absence that the node failed.
    return outcome.Reason.NONZERO_EXIT if message.exit_code else outcome.Reason.INTERNAL


def file_to_message(file: outcome.ResultFile) -> pb.ResultFile:
    """Write the name and the address of a result file."""
    return pb.ResultFile(name=file.name, size=file.artifact.size, sha256=file.artifact.sha256, mode=file.mode)


def file_from_message(message: pb.ResultFile) -> outcome.ResultFile:
    """Read the name and the address of a result file."""
    return outcome.ResultFile(message.name, outcome.Artifact(message.sha256, message.size), message.mode)


def artifacts(message: pb.TaskResult) -> Iterator[outcome.Artifact]:
    """Yield the artifact of each result file: there may be 40,000."""
    for file in message.files:
        yield outcome.Artifact(file.sha256, file.size)


def amounts_to_message(amounts: resources.Resources) -> pb.FreeResources:
    """Write amounts of resources for the wire."""
    return pb.FreeResources(
        cpu_cores=amounts.cpu_cores,
        memory_bytes=amounts.memory_bytes,
        disk_bytes=amounts.disk_bytes,
        gpus=amounts.gpus,
    )


def amounts_from_message(message: pb.FreeResources) -> resources.Resources:
    """Read amounts of resources from the wire."""
    return resources.Resources(message.cpu_cores, message.memory_bytes, message.disk_bytes, message.gpus)


def _usage_to_message(usage: outcome.Usage) -> pb.Usage:
    message = pb.Usage(wall_seconds=usage.wall_seconds)
    for name in _MEASURES:
        value = getattr(usage, name)
        if value is not None:
            setattr(message, name, value)
    return message


def live_to_message(amounts: Mapping[str, float], wall_seconds: float) -> pb.Usage:
    """Write what a running attempt uses for the wire; ``amounts`` by the names of the fields."""
    return pb.Usage(wall_seconds=wall_seconds, **amounts)  # type: ignore[arg-type]  # each name has its own type


def live_from_message(message: pb.Usage) -> dict[str, float]:
    """Read what a running attempt uses, by name; what nobody could tell is left out."""
    return {field.name: value for field, value in message.ListFields()}


def _usage_from_message(message: pb.Usage) -> outcome.Usage:
    measured = {field.name: value for field, value in message.ListFields() if field.name in _MEASURES}
    return outcome.Usage(wall_seconds=message.wall_seconds, **measured)


_MEASURES = (
    *("cpu_seconds", "peak_memory_bytes", "read_bytes", "written_bytes", "processes", "throttled_seconds"),
    *("network_sent_bytes", "network_received_bytes", "network_connections", "network_refused"),
)


def _limits_from_message(message: pb.Limits) -> outcome.Limits:
    return outcome.Limits(
        memory_bytes=message.memory_bytes,
        cpu_quota=message.cpu_quota,
        timeout_seconds=message.timeout_seconds,
        disk_bytes=message.disk_bytes,
        pids=message.pids,
    )


def _printable(text: str) -> str:
    # File names and messages may hold surrogates that stand for undecodable bytes; protobuf text may not.
    return text.encode("utf-8", "replace").decode("utf-8", "replace")
