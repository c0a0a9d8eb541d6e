"""What the fuzzer calls: each target takes any bytes and checks what must hold for them; a fault raises.

A target turns bytes into calls by itself (`Cursor`), with right checksums where a checksum would stop it at the door,
so that the kept inputs run again without a fuzzer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from google.protobuf import message as protobuf

from hivemind_worker import errors
from hivemind_worker.artifacts import store
from hivemind_worker.client import inputs, landing, submission, task_files
from hivemind_worker.runtime import results
from hivemind_worker.runtime.capsule import conversation, frame_types, frames, messages, paths, payloads
from hivemind_worker.tasks import outcome, plan, spec
from hivemind_worker.wire import translate, unparsed
from hivemind_worker.wire.generated import nodepool_pb2 as pb
from hivemind_worker.worker.journal import reader, records

MAX_FRAMES = 64
SAFE_NAME_BYTES = 4096
CANARY = "canary"
_KINDS = list(frame_types.FrameType)
_RESULT_KINDS = [kind for kind in _KINDS if kind.name.startswith("RESULT_")]
_FROM_CAPSULE = [kind for kind in _KINDS if kind & frame_types.FROM_CAPSULE]


class Cursor:
    """Reads numbers and byte strings off fuzzed bytes; zeros and empty strings when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def __bool__(self) -> bool:
        return self._place < len(self._data)

    def number(self, size: int = 1) -> int:
        """The next ``size`` bytes, little-endian."""
        return int.from_bytes(self.take(size), "little")

    def take(self, size: int) -> bytes:
        """At most the next ``size`` bytes."""
        taken = self._data[self._place : self._place + size]
        self._place += size
        return taken

    def string(self) -> bytes:
        """A length of two bytes, then so many bytes."""
        return self.take(self.number(2))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))


def capsule_frames(data: bytes) -> None:
    """Any bytes in any chunks: the same frames as at once, or FrameError; no other error, and memory is bounded."""
    cursor = Cursor(data)
    size = 1 + cursor.number()
    stream = cursor.rest()
    whole, in_chunks = frames.FrameReader(), frames.FrameReader()
    expected = _frames_of(whole, [stream])
    chunks = [stream[place : place + size] for place in range(0, len(stream), size)]
    read = _frames_of(in_chunks, chunks)
    assert read[: len(expected)] == expected, "the frames depend on how the bytes were cut"


def _frames_of(frame_reader: frames.FrameReader, chunks: list[bytes]) -> list[frames.Frame]:
    complete: list[frames.Frame] = []
    for chunk in chunks:
        try:
            complete += frame_reader.feed(chunk)
        except frames.FrameError:
            break
    return complete


def capsule_conversation(data: bytes) -> None:
    """Any frames with right checksums after any of our own words: messages or a capsule's fault, and caps hold."""
    cursor = Cursor(data)
    caps = messages.Limits(output_head=64, output_tail=64, results_count=4, results_bytes=256)
    session = conversation.Conversation()
    spec_message = messages.Spec(argv=(b"x",), workspace=b"/workspace", limits=caps)
    words: list[messages.FromWorker] = [spec_message, messages.Start(), messages.Stop(1), messages.Input(b"ab")]
    output = content = 0
    sequence = 0
    try:
        session.receive(_ready())
        for _ in range(MAX_FRAMES):
            if not cursor:
                break
            choice = cursor.number()
            if choice < len(words):
                session.send(words[choice])
                continue
            kind = _FROM_CAPSULE[choice % len(_FROM_CAPSULE)]
            sequence = sequence + 1 if choice < 0xF0 else cursor.number(8)
            for message in session.receive(frames.encode(kind, sequence, cursor.string()[: payloads.MAX_PAYLOAD])):
                output += len(message.data) if isinstance(message, messages.Output) else 0
                content += len(message.data) if isinstance(message, messages.ResultData) else 0
                if isinstance(message, messages.ResultBegin):
                    assert paths.problem(message.path) is None, message.path
            session.acknowledgement()
    except errors.CapsuleFault:
        pass
    assert output <= caps.output_head + 2 * caps.output_tail
    assert content <= caps.results_bytes
    assert len(session.story()) < 100_000


def _ready() -> bytes:
    return _frame(messages.Ready(messages.State.IDLE), 0)


def capsule_payloads(data: bytes) -> None:
    """Any payload that a capsule may send: ValueError, or a message that is written and read again as the same."""
    cursor = Cursor(data)
    kind = _FROM_CAPSULE[cursor.number() % len(_FROM_CAPSULE)]
    try:
        message = payloads.decode(kind, cursor.rest())
    except ValueError:
        return
    encoded_kind, payload = payloads.encode(message)
    assert encoded_kind == kind
    assert payloads.decode(kind, payload) == message


def result_tree(data: bytes) -> None:
    """Any tree of results a capsule may tell: nothing outside the two folders is read or written, names are plain.

    From the messages through the store to the download of what the store then holds, as a client does it.
    """
    caps = plan.Caps(0, 0, results_bytes=4096, results_count=16, results_depth=8, results_seconds=1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / CANARY).write_text(CANARY)
        target = folder / "download"
        target.mkdir()
        for name, goal in (("link", folder), ("file", folder / CANARY)):
            (target / name).symlink_to(goal)
        told = list(result_messages(Cursor(data), caps))
        received = asyncio.run(_received_and_downloaded(folder / "store", told, caps, target))
        assert len(received.files) <= caps.results_count
        assert sum(file.artifact.size for file in received.files) <= caps.results_bytes
        for file in received.files:
            assert paths.problem(file.name.encode()) is None
            assert not file.mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX)
        assert all("\n" not in skip.name and len(skip.name) < SAFE_NAME_BYTES for skip in received.skipped)
        assert (folder / CANARY).read_text() == CANARY
        assert {path.name for path in folder.iterdir()} == {CANARY, "download", "store"}


def result_messages(cursor: Cursor, caps: plan.Caps) -> Iterator[results.ResultMessage]:
    """Whatever results a capsule may tell of after its task has ended, as far as the conversation lets it."""
    limits = messages.Limits(results_bytes=caps.results_bytes, results_count=caps.results_count)
    session = conversation.Conversation()
    with contextlib.suppress(errors.CapsuleFault):
        session.receive(_ready())
        session.send(messages.Spec(argv=(b"x",), workspace=b"/workspace", limits=limits))
        session.send(messages.Start())
        session.receive(_frame(messages.Exited(0, None, messages.Why.OWN), 1))
        for sequence in range(2, MAX_FRAMES):
            if not cursor:
                return
            kind = _RESULT_KINDS[cursor.number() % len(_RESULT_KINDS)]
            payload = cursor.string()[: payloads.MAX_PAYLOAD]
            yield from (
                message
                for message in session.receive(frames.encode(kind, sequence, payload))
                if isinstance(message, results.ResultMessage)
            )


def _frame(message: messages.Message, sequence: int) -> bytes:
    kind, payload = payloads.encode(message)
    return frames.encode(kind, sequence, payload)


async def _received_and_downloaded(
    folder: Path, told: list[results.ResultMessage], caps: plan.Caps, target: Path
) -> results.Results:
    artifacts = store.Store(folder)
    artifacts.prepare()
    receiver = results.Receiver(artifacts, caps)
    try:
        for message in told:
            await receiver.take(message)
        received = await receiver.finish()
        for file in received.files:
            await _download(artifacts, file, target)
    finally:
        await receiver.abort()
        artifacts.close()
    return received


async def _download(artifacts: store.Store, file: outcome.ResultFile, target: Path) -> None:
    content = artifacts.path(file.artifact.sha256).read_bytes()
    try:
        place = landing.place(target, file.name)
        async with landing.Landing(target, place, file) as arriving:
            if not arriving.done:
                arriving.write(content[arriving.offset :])
                assert arriving.finish()
    except errors.HiveMindError:
        return  # one in the way of another, or a link in the folder: refused, and said
    assert _is_inside(place, target), file.name
    assert place.read_bytes() == content


def _is_inside(place: Path, folder: Path) -> bool:
    return not place.is_symlink() and place.parent.resolve().is_relative_to(folder.resolve())


def task_file(data: bytes) -> None:
    """Any task file: tasks that can be sent and are read the same by the pool, or InvalidTask and nothing else."""
    try:
        tasks = task_files.parse(data.decode("utf-8-sig", "surrogatepass"), "tasks.json")
    except (errors.InvalidTask, UnicodeDecodeError):
        return
    with tempfile.TemporaryDirectory() as scratch:
        for fields in tasks[:8]:
            _check_task(fields, Path(scratch))


def _check_task(fields: Mapping[str, object], folder: Path) -> None:
    try:
        prepared = inputs.prepare(fields, folder)
        message = submission.to_message(prepared, "")
    except errors.UserError:
        return
    assert_same(translate.task_from_message(pb.Task.FromString(message.SerializeToString())), prepared.task)


def assert_same(arrived: spec.TaskSpec, sent: spec.TaskSpec) -> None:
    """What the pool reads is what was submitted."""
    assert arrived == sent or repr(arrived) == repr(sent), f"{sent} arrived as {arrived}"


def journal(data: bytes) -> None:
    """Any journal: what can be read is read, the rest is set aside; nothing raises, and compaction says the same.

    The lines get a right checksum in half of the inputs: a broken one is met by a disk, a right one by a programmer.
    """
    cursor = Cursor(data)
    choice = cursor.number()
    heads = (records.header("boot"), f"{records.HEADER_V1}\n".encode(), f"{records.HEADER_V2}\n".encode(), b"")
    content = heads[choice % len(heads)] + _journal_lines(cursor, with_checksums=bool(choice & 0x80))
    read = reader.parse(content, "boot")
    rewritten = records.header("boot") + b"".join(records.encode(record) for record in read.holdings.records())
    again = reader.parse(rewritten, "boot")
    assert not again.damaged, again.damaged
    assert again.holdings.attempts == read.holdings.attempts
    for key, held in read.holdings.attempts.items():
        assert isinstance(key.task_id, str)
        assert type(key.attempt) is int
        for record in held.records():
            _check_types(record)


def _journal_lines(cursor: Cursor, *, with_checksums: bool) -> bytes:
    if not with_checksums:
        return cursor.rest()
    lines = [line for line in cursor.rest().split(b"\n") if line]
    return b"".join(b"%08x %s\n" % (zlib.crc32(line), line) for line in lines)


def _check_types(record: records.Record) -> None:
    for name in ("task_id", "store_epoch", "run_id", "doubt"):
        assert isinstance(getattr(record, name, ""), str), (name, record)
    for name in ("task", "result"):
        assert isinstance(getattr(record, name, b""), bytes), (name, record)
    assert type(getattr(record, "preparations", 1)) is int, record
    capsule = getattr(record, "capsule", {})
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in capsule.items()), record


def wire_task(data: bytes) -> None:
    """Any bytes as a task of the wire: InvalidTask, or a task that is written and read again as the same.

    What the cost of unparsed bytes is counted to be never raises anything but DecodeError.
    """
    with contextlib.suppress(protobuf.DecodeError):
        unparsed.cost(pb.SubmitTasksRequest, data)
    try:
        message = translate.parsed(pb.Task, data)
    except ValueError:
        return
    try:
        task = translate.task_from_message(message)
    except errors.InvalidTask:
        return
    assert_same(translate.task_from_message(translate.task_to_message(task)), task)


def wire_result(data: bytes) -> None:
    """Any bytes as a report: Rejected, or an outcome that is written and read again as the same."""
    try:
        message = translate.parsed(pb.TaskResult, data)
        read = translate.outcome_from_message(message)
    except (ValueError, errors.Rejected):
        return
    assert translate.outcome_from_message(translate.outcome_to_message(read)) == read


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        capsule_frames,
        capsule_conversation,
        capsule_payloads,
        result_tree,
        task_file,
        journal,
        wire_task,
        wire_result,
    )
}


def _choice(kind: frame_types.FrameType) -> bytes:
    return bytes([_RESULT_KINDS.index(kind)])


def _told(message: messages.Message) -> bytes:
    """A word of the capsule as `capsule_conversation` reads it: its kind as a number that is none of ours."""
    kind, payload = payloads.encode(message)
    return bytes([_FROM_CAPSULE.index(kind) + len(_FROM_CAPSULE)]) + _sized(payload)


def _sized(text: bytes) -> bytes:
    return len(text).to_bytes(2, "little") + text


def seeds(name: str) -> list[bytes]:
    """A few honest inputs to begin from: what the code itself writes."""
    task = {"command": ["echo", "a"], "input_files": {"a/b": "x"}, "timeout": 1.5, "labels": {"a": "b"}}
    accepted = records.Accepted("t", 1, b"task", "e", "r")
    journal_lines = [
        records.encode(record)[9:]
        for record in (accepted, records.Started("t", 1, {"id": "c"}, "e", "r"), records.Ended("t", 1, b"r", "e", "r"))
    ]
    told: list[messages.Message] = [
        messages.ResultBegin(b"a/b", 0o644, 2),
        messages.ResultData(0, b"hi"),
        messages.ResultEnd(),
    ]
    told += [
        messages.ResultSkipped(b"c", messages.Skipped.FIFO),
        messages.ResultBegin(b"link/x", 0o4755, 0),
        messages.ResultEnd(),
    ]
    tree = b"".join(_choice(kind) + _sized(payload) for kind, payload in map(payloads.encode, told))
    output: list[messages.Message] = [
        messages.Output(messages.Stream.OUT, place, b"x" * 50) for place in range(0, 250, 50)
    ]
    words = bytes([0, 1]) + b"".join(map(_told, output[:2]))
    flood = bytes([0, 1]) + b"".join(map(_told, output))
    end = bytes([0, 1]) + _told(messages.Exited(0, None, messages.Why.OWN)) + b"".join(map(_told, told))
    by_name: Mapping[str, list[bytes]] = {
        "capsule_frames": [b"\x07" + _ready() + frames.encode(frame_types.FrameType.OUT, 1, b"\0" * 12)],
        "capsule_conversation": [words, flood, end],
        "capsule_payloads": [bytes([place]) + b"\0" * 16 for place in range(len(_FROM_CAPSULE))],
        "result_tree": [tree],
        "task_file": [json.dumps(task).encode(), json.dumps([task, {"code": "print(1)"}]).encode()],
        "journal": [b"\x80" + b"".join(journal_lines), b"\0" + records.encode(accepted), b"\x81" + journal_lines[0]],
        "wire_task": [translate.task_to_message(spec.parse(task)).SerializeToString()],
        "wire_result": [pb.TaskResult(status="completed", reason="", logs="x").SerializeToString()],
    }
    return by_name[name]
