"""The largest that each call of the pool can be asked, and the least kind ways to ask it. By the calls' names."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import grpc
import memory_world
from google.protobuf.internal import encoder

from hivemind_worker.wire import calls

pb = calls.pb
MIB = 1024**2
FULL = calls.MESSAGE_BYTES - 64
World = memory_world.World
Attack = Callable[[World], Awaitable[None]]


def entry(number: int, content: bytes = b"") -> bytes:
    """One field with a length, on the wire."""
    return bytes(encoder.TagBytes(number, 2)) + bytes(encoder._VarintBytes(len(content))) + content  # type: ignore[attr-defined]


def full(piece: bytes, size: int = FULL) -> bytes:
    """As many of a piece as a message takes."""
    return piece * (size // len(piece))


async def send(world: World, call: str, data: bytes, *, streams: bool = False) -> None:
    """Send bytes as a request, and take whatever is answered."""
    service = next(each for each in pb.DESCRIPTOR.services_by_name.values() if call in each.methods_by_name)
    path = f"/{service.full_name}/{call}"
    channel: Any = world.channel
    with contextlib.suppress(grpc.aio.AioRpcError):
        if streams:
            await channel.stream_unary(path)(iter([data]))
        else:
            method = service.methods_by_name[call]
            if method.server_streaming:
                async for _ in channel.unary_stream(path)(data):
                    pass
            else:
                await channel.unary_unary(path)(data)


def raw(call: str, make: Callable[[], bytes], *, streams: bool = False) -> Attack:
    """An attack by bytes, made when it begins: all of them at once take 400 MiB."""

    async def attack(world: World) -> None:
        await send(world, call, make(), streams=streams)

    return attack


async def quietly(call: Awaitable[Any]) -> None:
    """Make a call, however it ends."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        await call


async def read(stream: Any) -> None:
    """Read a stream to its end."""
    async for _ in stream:
        pass


async def stall(world: World, stream: Any) -> None:
    """Read one message of a stream, and no more for as long as the pool does anything."""
    await stream.read()
    await world.stands_still()
    stream.cancel()


def refs(count: int, size: int = 300) -> list[pb.AttemptRef]:
    """Attempts that nobody has, with long names."""
    return [pb.AttemptRef(task_id=f"{n:06}" + "t" * size, attempt=1, run_id="r" * 32) for n in range(count)]


def words(count: int, size: int) -> list[str]:
    """Words that differ."""
    return [f"{n:06}" + "w" * size for n in range(count)]


async def register_long(world: World) -> None:
    request = pb.RegisterNodeRequest(node_id="other", held=refs(9_000), capabilities=words(1_000, 900))
    await quietly(world.nodes.RegisterNode(request))


async def beat_long(world: World) -> None:
    request = pb.UpdateNodeStatusRequest(node_id="n", session_id=world.session, held=refs(10_000))
    await quietly(world.nodes.UpdateNodeStatus(request))
    readings = dict.fromkeys(words(1_000, 3_000), 1.0)
    request = pb.UpdateNodeStatusRequest(node_id="n", session_id=world.session, readings=readings)
    await quietly(world.nodes.UpdateNodeStatus(request))


async def poll_long(world: World) -> None:
    request = pb.GetAssignedTasksRequest(
        node_id="n", session_id=world.session, images=words(10_000, 160), held=refs(10_000, 100), wait_seconds=0.1
    )
    await quietly(world.nodes.GetAssignedTasks(request))


async def poll_large(world: World) -> None:
    """Eight large tasks, one an answer."""
    task = memory_world.small_task(command="x" * (3 * MIB))
    for _ in range(4):
        await world.tasks.SubmitTasks(pb.SubmitTasksRequest(tasks=[task]))
        (taken,) = (await world.worker.poll(10, most=64)).tasks
        await world.worker.report(taken)


async def poll_many(world: World) -> None:
    task = memory_world.small_task(command="x" * (50 * 1024))
    await world.tasks.SubmitTasks(pb.SubmitTasksRequest(tasks=[task] * 60))
    left = 60
    while left:
        for taken in (await world.worker.poll(10, most=64)).tasks:
            await world.worker.report(taken)
            left -= 1


def report(make: Callable[[], dict[str, Any]]) -> Attack:
    """An end, as large as a message."""

    async def attack(world: World) -> None:
        await world.tasks.SubmitTasks(pb.SubmitTasksRequest(tasks=[memory_world.small_task()]))
        task = await world.worker.take()
        await quietly(world.worker.report(task, "failed", reason="nonzero_exit", exit_code=1, **make()))
        await world.worker.report(task, "failed", reason="nonzero_exit", exit_code=1)

    return attack


async def append_much(world: World) -> None:
    await world.tasks.SubmitTasks(pb.SubmitTasksRequest(tasks=[memory_world.small_task()]))
    task = await world.worker.take()
    await memory_world.append(world, task, b"y" * 32 * MIB, MIB)
    await memory_world.append(world, task, b"y" * 40_000, 1)
    await world.worker.report(task)


def random_bytes() -> bytes:
    """40 MB that are not all the same."""
    return b"".join(bytes([n % 251]) * 1_000 for n in range(40_000))


def uploading(first: int, step: int) -> Attack:
    """An upload by a node, of another file for each ``first``."""

    async def attack(world: World) -> None:
        await quietly(memory_world.upload(world, random_bytes()[first:], step))

    return attack


def putting(first: int, step: int) -> Attack:
    """An upload by a submitter, of another file for each ``first``."""

    async def attack(world: World) -> None:
        data = random_bytes()[first:]

        async def pieces() -> AsyncIterator[pb.UploadInputRequest]:
            yield pb.UploadInputRequest(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
            for start in range(0, len(data), step):
                yield pb.UploadInputRequest(offset=start, data=data[start : start + step])

        await quietly(world.tasks.UploadInput(pieces()))

    return attack


def download(*, stalls: bool) -> Attack:
    async def attack(world: World) -> None:
        request = pb.DownloadArtifactRequest(node_id="n", session_id=world.session, sha256=memory_world.file_sum())
        stream = world.nodes.DownloadArtifact(request)
        await (stall(world, stream) if stalls else read(stream))

    return attack


def result(*, stalls: bool) -> Attack:
    async def attack(world: World) -> None:
        request = pb.DownloadResultRequest(task_id=world.ids["named"][0], name="out/029999")
        stream = world.tasks.DownloadResult(request)
        await (stall(world, stream) if stalls else read(stream))

    return attack


def submit(make: Callable[[], Iterable[pb.Task]]) -> Attack:
    async def attack(world: World) -> None:
        await send(world, "SubmitTasks", pb.SubmitTasksRequest(tasks=make()).SerializeToString())

    return attack


def gpu_task(**said: Any) -> pb.Task:
    """A task that nobody takes."""
    return memory_world.small_task(required_resources=pb.RequiredResources(gpus=1), **said)


def nested_task() -> bytes:
    """A task with a list of empty lists."""
    values = entry(6, full(entry(1, entry(6)), FULL // 8))
    return entry(1, entry(61, values) + entry(2, b"data_processing") + entry(60, b"text_analysis"))


def about(call: str, *names: str) -> Attack:
    """A call about one task, for each of some names."""

    async def attack(world: World) -> None:
        stub: Any = world.tasks
        for name in names:
            for task_id in world.ids[name]:
                await quietly(getattr(stub, call)(getattr(pb, f"{call}Request")(task_id=task_id)))

    return attack


def listing(**wanted: Any) -> Attack:
    async def attack(world: World) -> None:
        token = ""
        for _ in range(12):
            answer = await world.tasks.ListTasks(pb.ListTasksRequest(page_size=1_000, page_token=token, **wanted))
            token = answer.next_page_token
            if not token:
                break

    return attack


def watch(*names: str, stalls: bool) -> Attack:
    async def attack(world: World) -> None:
        ids = [task_id for name in names for task_id in world.ids[name]][:10_000]
        stream = world.tasks.WatchTasks(pb.WatchTasksRequest(task_ids=ids))
        if stalls:
            await stall(world, stream)
        else:
            for _ in ids:
                await stream.read()
            stream.cancel()

    return attack


async def cancel(world: World) -> None:
    ids = [*world.ids["long"], *world.ids["wide"], *world.ids["queued"]][:10_000]
    await world.tasks.CancelTasks(pb.CancelTasksRequest(task_ids=ids))


async def retry(world: World) -> None:
    await world.tasks.RetryTasks(pb.RetryTasksRequest(task_ids=world.ids["large"] * 3))
    await world.tasks.RetryTasks(pb.RetryTasksRequest(task_ids=world.ids["long"] * 300))
    new = [each.id for each in (await world.tasks.ListTasks(pb.ListTasksRequest(states=["queued"]))).tasks]
    await world.tasks.CancelTasks(pb.CancelTasksRequest(task_ids=new))


def logs(name: str, *, stalls: bool) -> Attack:
    async def attack(world: World) -> None:
        for task_id in world.ids[name]:
            stream = world.tasks.GetTaskLogs(pb.GetTaskLogsRequest(task_id=task_id))
            await (stall(world, stream) if stalls else read(stream))

    return attack


async def list_nodes(world: World) -> None:
    token, more = "", True
    while more:
        answer = await world.tasks.ListNodes(pb.ListNodesRequest(page_token=token))
        token = answer.next_page_token
        more = bool(token)


async def find(world: World) -> None:
    await world.tasks.FindArtifacts(pb.FindArtifactsRequest(sha256=[f"{n:064x}" for n in range(40_000)]))


async def info(world: World) -> None:
    await world.tasks.GetPoolInfo(pb.GetPoolInfoRequest())


def unknown() -> bytes:
    """A request of fields that nobody knows."""
    return full(entry(200, b"u" * 1_000))


def empties() -> bytes:
    """The same, with as many as there can be."""
    return full(entry(200))


ATTACKS: dict[str, dict[str, Attack]] = {
    "RegisterNode": {"held": raw("RegisterNode", lambda: full(entry(13))), "long": register_long},
    "UpdateNodeStatus": {"held": raw("UpdateNodeStatus", lambda: full(entry(6))), "long": beat_long},
    "GetAssignedTasks": {
        "held": raw("GetAssignedTasks", lambda: full(entry(8))),
        "images": raw("GetAssignedTasks", lambda: full(entry(5))),
        "long": poll_long,
        "large": poll_large,
        "many": poll_many,
    },
    "ReportTaskResult": {
        "files": raw("ReportTaskResult", lambda: entry(3, full(entry(9)))),
        "timings": raw("ReportTaskResult", lambda: entry(3, full(entry(18, entry(1, b"abc"))))),
        "logs": report(lambda: {"logs": memory_world.LONG + "x" * (MIB - 2_000), "stdout_bytes": 2**40}),
        "wide": report(lambda: {"logs": memory_world.wide() + "x" * (MIB - 2_000), "stdout_bytes": 2**40}),
        "named": report(
            lambda: {"files": [pb.ResultFile(name=f"{n:06}", sha256=f"{n:064x}", size=1) for n in range(45_000)]}
        ),
        "inline": report(lambda: {"result_data": {f"{n:06}": bytes(2_500) + bytes([n % 250]) for n in range(1_500)}}),
        "large": report(lambda: {"result_data": {"one": bytes(FULL - 2_000)}}),
        "skipped": report(lambda: {"skipped": [pb.SkippedFile(name=f"{n:06}", why="x" * 50) for n in range(60_000)]}),
    },
    "Ping": {"unknown": raw("Ping", unknown), "empties": raw("Ping", empties)},
    "AppendTaskLogs": {"empties": raw("AppendTaskLogs", lambda: full(entry(5)), streams=True), "much": append_much},
    "UploadArtifact": {"usual": uploading(0, MIB), "large": uploading(5, FULL - 64)},
    "DownloadArtifact": {"read": download(stalls=False), "stalled": download(stalls=True)},
    "SubmitTasks": {
        "empties": raw("SubmitTasks", lambda: full(entry(1))),
        "nested": raw("SubmitTasks", nested_task),
        "many": submit(lambda: [gpu_task(command="x" * 320, labels={"a": "b"})] * 10_000),
        "large": submit(lambda: [gpu_task(command="x" * (FULL - 5_000))]),
        "wide": submit(lambda: [gpu_task(command="🙂" + "x" * (FULL - 5_000))]),
        "some": submit(lambda: [gpu_task(command="x" * 390_000)] * 10),
        "args": submit(lambda: [gpu_task(args=[f"{n:04}" for n in range(400_000)])]),
        "fewer args": submit(lambda: [gpu_task(args=[f"{n:04}" for n in range(160_000)])]),
    },
    "GetTask": {"ended": about("GetTask", "long", "wide", "named", "large")},
    "ListTasks": {"all": listing(), "ended": listing(states=["failed"])},
    "WatchTasks": {
        "empties": raw("WatchTasks", lambda: full(entry(1))),
        "read": watch("long", "wide", "named", "queued", stalls=False),
        "stalled": watch("queued", stalls=True),
        "stalled at ends": watch("long", "wide", stalls=True),
    },
    "CancelTasks": {"many": cancel, "empties": raw("CancelTasks", lambda: full(entry(1)))},
    "GetTaskLogs": {
        **{f"{name} read": logs(name, stalls=False) for name in ("logged", "tiny", "long", "wide")},
        **{f"{name} stalled": logs(name, stalls=True) for name in ("logged", "tiny")},
    },
    "ListResults": {"named": about("ListResults", "named", "wide")},
    "DownloadResult": {"read": result(stalls=False), "stalled": result(stalls=True)},
    "UploadInput": {"usual": putting(3, MIB), "large": putting(9, FULL - 64)},
    "FindArtifacts": {"many": find, "empties": raw("FindArtifacts", lambda: full(entry(1)))},
    "RetryTasks": {"large": retry, "empties": raw("RetryTasks", lambda: full(entry(1)))},
    "ListNodes": {"all": list_nodes},
    "DrainNode": {"unknown": raw("DrainNode", empties)},
    "ResumeNode": {"unknown": raw("ResumeNode", empties)},
    "GetPoolInfo": {"nodes": info, "unknown": raw("GetPoolInfo", empties)},
}
"""Of each call of both services."""
