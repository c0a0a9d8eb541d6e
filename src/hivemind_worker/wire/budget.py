"""What fits into a message, and what is cut where it does not: every maker of a message asks here before it sends.

A message that is too large is refused whole, by whichever end reads it, and for as long as it is repeated. So whoever
makes one keeps `MESSAGE_BUDGET`: what may be cut is cut, in the order that stands in the functions below, and a flag or
a line says so; what may not be cut goes in pages. Nothing here knows what the numbers in a message mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from google.protobuf import message as protobuf

from hivemind_worker.tasks import outcome
from hivemind_worker.wire.generated import nodepool_pb2 as pb

M = TypeVar("M", bound=protobuf.Message)

MESSAGE_BUDGET = 4 * 1024**2 - 64 * 1024
"""Largest message that anybody makes: the 4 MiB that both ends take, less room for what a later version may add."""

MIN_REPORT_BYTES = 64 * 1024
"""Smallest that a refused report is made: what no peer refuses that serves reports at all."""

LOG_BYTES = 2 * 1024**2
"""Most of a task's output that its end carries; all of it goes to the pool while the task runs."""

_TAG = 8  # of a field and its length, at most
_FLAGS = 64  # both flags that may come to a result
_STORY_BYTES = 256 * 1024
_TEXT = 10_000
_SHORT = 1_000
_MANY = 100
_MIN_LOG_BYTES = 64 * 1024


def fits(message: protobuf.Message, max_bytes: int = MESSAGE_BUDGET) -> bool:
    """Whether ``message`` keeps the budget."""
    return message.ByteSize() <= max_bytes


def cut_middle(data: bytes, max_bytes: int) -> bytes:
    """Return ``data``, or its head and its tail with a line between that says how much is missing."""
    if len(data) <= max_bytes:
        return data
    line = f"\n… {len(data) - max_bytes} bytes and more left out here: a report has no room for them …\n".encode()
    room = max_bytes - len(line)
    if room <= 0:
        return b""
    head = room - room // 2
    return data[:head] + line + data[len(data) - room // 2 :]


def cut_text(text: str, max_bytes: int) -> str:
    """As `cut_middle`, for text: no character is cut in two."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= max_bytes else cut_middle(data, max_bytes).decode("utf-8", "ignore")


def fit_result(result: pb.TaskResult, max_bytes: int = MESSAGE_BUDGET) -> bool:
    """Cut a result in place until it fits; whether anything was cut.

    In this order: output down to 64 KiB, skipped names beyond 100, a long error, long or repeated words, the rest of
    the output, of the skipped names and of the error, inline files from the largest, names of files from the last.
    Flags say what is missing of output and results; a cut text says so itself.
    """
    if fits(result, max_bytes):
        return False
    limit = max_bytes - _FLAGS
    before = (len(result.logs), len(result.files) + len(result.result_data), len(result.skipped))
    for cut in (_cut_logs, _cut_skipped, _cut_error, _cut_words, _cut_all_but_files, _cut_inline, _cut_files):
        cut(result, limit)
        if fits(result, limit):
            break
    after = (len(result.logs), len(result.files) + len(result.result_data), len(result.skipped))
    flags = set(result.flags) & {str(flag) for flag in outcome.Flag}
    if after[0] != before[0]:
        flags.add(str(outcome.Flag.OUTPUT_TRUNCATED))
    if after[1:] != before[1:]:
        flags.add(str(outcome.Flag.RESULTS_TRUNCATED))
    result.flags[:] = sorted(flags)
    return True


def fit_report(request: pb.ReportTaskResultRequest, max_bytes: int = MESSAGE_BUDGET) -> bool:
    """Cut a report's result in place until the whole request fits; whether anything was cut."""
    rest = request.ByteSize() - request.result.ByteSize()
    return fit_result(request.result, max_bytes - rest - _TAG)


def fit_task(info: pb.TaskInfo, max_bytes: int = MESSAGE_BUDGET - 2 * _TAG) -> bool:
    """Cut what is told of a task in place until it fits, and mark it; whether anything was cut.

    First the middle of a long story, then long words, then the result, as `fit_result` does.
    """
    if fits(info, max_bytes):
        return False
    info.truncated = True
    _cut_story(info)
    for name in ("waiting_because", "phase", "retry_of", "traceparent", "node_id", "type"):
        setattr(info, name, cut_text(getattr(info, name), _SHORT))
    if sum(len(key) + len(value) for key, value in info.labels.items()) > _TEXT * 10:
        info.ClearField("labels")
    if info.HasField("result"):
        rest = info.ByteSize() - info.result.ByteSize()
        fit_result(info.result, max_bytes - rest - _TAG)
    if not fits(info, max_bytes):
        info.DiscardUnknownFields()
    return True


def fit_node(info: pb.NodeInfo, max_bytes: int = MESSAGE_BUDGET - 2 * _TAG) -> bool:
    """Cut what is told of a node in place until it fits, and mark it; whether anything was cut.

    First what its attempts use, then its measurements, long words, capabilities beyond 100, attempts from the last.
    """
    if fits(info, max_bytes):
        return False
    info.truncated = True
    for attempt in info.attempts:
        attempt.ClearField("usage")
    if not fits(info, max_bytes):
        info.ClearField("readings")
    for name in ("message", "status", "version"):
        setattr(info, name, cut_text(getattr(info, name), _SHORT))
    if not fits(info, max_bytes):
        info.capabilities[:] = [cut_text(word, _SHORT) for word in info.capabilities[:_MANY]]
    drop_last(info, "attempts", max_bytes)
    return True


def fit_held(
    request: pb.RegisterNodeRequest | pb.UpdateNodeStatusRequest | pb.GetAssignedTasksRequest,
    max_bytes: int = MESSAGE_BUDGET,
) -> bool:
    """Cut what a node says beside the attempts that it holds; whether anything was cut.

    An attempt that is not named would be given to another node, so none is left out: what they use goes first, then
    their phases, then images, measurements and words.
    """
    if fits(request, max_bytes):
        return False
    for field in ("usage", "phase"):
        for attempt in request.held:
            attempt.ClearField(field)
        if fits(request, max_bytes):
            return True
    if isinstance(request, pb.GetAssignedTasksRequest):
        drop_last(request, "images", max_bytes)
    elif isinstance(request, pb.UpdateNodeStatusRequest):
        request.message = cut_text(request.message, _SHORT)
        if not fits(request, max_bytes):
            request.ClearField("readings")
    else:
        drop_last(request, "capabilities", max_bytes)
    return True


def drop_last(message: protobuf.Message, field: str, max_bytes: int = MESSAGE_BUDGET) -> int:
    """Leave out the last entries of a list until the message fits; return how many.

    For what is told again: a cancellation that finds no room comes with the next heartbeat.
    """
    surplus = message.ByteSize() - max_bytes
    entries = getattr(message, field)
    keep = len(entries)
    while surplus > 0 and keep:
        keep -= 1
        surplus -= _size(entries[keep])
    dropped = len(entries) - keep
    if dropped:
        del entries[keep:]
    return dropped


def page(messages: Iterable[M], max_bytes: int = MESSAGE_BUDGET) -> list[M]:
    """Return as many of the first messages as fit into one answer, at least one; reads no more of them than that."""
    taken: list[M] = []
    size = 2 * _SHORT
    for message in messages:
        size += message.ByteSize() + _TAG
        if taken and size > max_bytes:
            break
        taken.append(message)
    return taken


def _size(entry: object) -> int:
    if isinstance(entry, protobuf.Message):
        return entry.ByteSize() + 2
    return len(entry.encode()) + 2 if isinstance(entry, str) else 2


def _cut_logs(result: pb.TaskResult, limit: int) -> None:
    size = len(result.logs.encode())
    target = max(_MIN_LOG_BYTES, size - (result.ByteSize() - limit))
    if target < size:
        result.logs = cut_text(result.logs, target)


def _cut_skipped(result: pb.TaskResult, _limit: int) -> None:
    if len(result.skipped) <= _MANY:
        return
    left = len(result.skipped) - (_MANY - 1)
    del result.skipped[_MANY - 1 :]
    result.skipped.add(name="…", why=f"{left} more were skipped")


def _cut_error(result: pb.TaskResult, _limit: int) -> None:
    result.error = cut_text(result.error, _TEXT)


def _cut_words(result: pb.TaskResult, _limit: int) -> None:
    for name in ("status", "reason", "node_check", "image_digest", "isolation", "runtime"):
        setattr(result, name, cut_text(getattr(result, name), _SHORT))
    result.limits_hit[:] = _few(result.limits_hit)
    result.flags[:] = _few(sorted(set(result.flags)))
    for skipped in result.skipped:
        skipped.name, skipped.why = cut_text(skipped.name, _SHORT), cut_text(skipped.why, _SHORT)
    if len(result.timings) > _MANY or any(len(name) > _SHORT for name in result.timings):
        timings = {name: result.timings[name] for name in _few(sorted(result.timings))}
        result.timings.clear()
        for name, seconds in timings.items():
            result.timings[name] = seconds
    result.DiscardUnknownFields()


def _few(words: Sequence[str]) -> list[str]:
    return [word for word in words[:_MANY] if len(word) <= _SHORT]


def _cut_all_but_files(result: pb.TaskResult, limit: int) -> None:
    result.error = cut_text(result.error, _SHORT)
    result.ClearField("skipped")
    if not fits(result, limit) and result.logs:
        size = len(result.logs.encode())
        result.logs = cut_text(result.logs, max(0, size - (result.ByteSize() - limit)))
    for name in ("limits_hit", "timings", "runtime", "image_digest"):
        if not fits(result, limit):
            result.ClearField(name)


def _cut_inline(result: pb.TaskResult, limit: int) -> None:
    names = sorted(result.result_data, key=lambda name: len(result.result_data[name]))
    surplus = result.ByteSize() - limit
    while names and surplus > 0:
        name = names.pop()
        surplus -= len(name.encode()) + len(result.result_data[name])
        del result.result_data[name]


def _cut_files(result: pb.TaskResult, limit: int) -> None:
    drop_last(result, "files", limit)


def _cut_story(info: pb.TaskInfo) -> None:
    """The first and the last events stay."""
    size = sum(event.ByteSize() + 2 for event in info.story)
    if size <= _STORY_BYTES:
        return
    for event in info.story:
        event.details = cut_text(event.details, _SHORT)
        event.node_id, event.event = cut_text(event.node_id, _SHORT), cut_text(event.event, _SHORT)
    events = list(info.story)
    half = max(1, min(len(events) // 2, _STORY_BYTES // (2 * max(event.ByteSize() + 2 for event in events))))
    if 2 * half < len(events):
        left = len(events) - 2 * half
        gap = pb.TaskEvent(at=events[half].at, event="left_out", details=f"{left} events left out here")
        told = [*events[:half], gap, *events[-half:]]
        info.ClearField("story")
        info.story.extend(told)
