"""A worker written from the reference document alone: four calls, its field names, no session; it works at our pool."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pool_parts
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# The document names calls and fields but numbers none, so the numbers are ours; it types them by how it fills them.
_FIELDS: dict[str, list[tuple[str, int, str]]] = {
    "RegisterNodeRequest": [
        ("node_id", 1, "string"),
        ("ip_address", 2, "string"),
        ("port", 3, "int32"),
        ("cpu_cores", 4, "double"),
        ("memory_gb", 5, "double"),
        ("disk_gb", 6, "double"),
        ("capabilities", 7, "repeated string"),
    ],
    "RegisterNodeResponse": [("success", 1, "bool"), ("message", 2, "string")],
    "UpdateNodeStatusRequest": [("node_id", 1, "string"), ("status", 2, "string"), ("timestamp", 3, "int64")],
    "UpdateNodeStatusResponse": [("success", 1, "bool"), ("message", 2, "string")],
    "GetAssignedTasksRequest": [("node_id", 1, "string")],
    "Task": [
        ("id", 1, "string"),
        ("type", 2, "string"),
        ("docker_image", 3, "string"),
        ("command", 4, "string"),
        ("code", 6, "string"),
        ("input_files", 9, "map bytes"),
        ("memory_limit", 12, "string"),
        ("cpu_quota", 13, "int64"),
    ],
    "GetAssignedTasksResponse": [("tasks", 1, "repeated Task")],
    "TaskResult": [
        ("status", 1, "string"),
        ("exit_code", 2, "int32"),
        ("logs", 3, "string"),
        ("error", 4, "string"),
        ("result_data", 5, "map bytes"),
    ],
    "ReportTaskResultRequest": [
        ("task_id", 1, "string"),
        ("node_id", 2, "string"),
        ("result", 3, "TaskResult"),
        ("status", 4, "string"),
        ("timestamp", 5, "int64"),
    ],
    "ReportTaskResultResponse": [("success", 1, "bool"), ("message", 2, "string")],
}
_CALLS = ("RegisterNode", "UpdateNodeStatus", "GetAssignedTasks", "ReportTaskResult")
_TYPES = {
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "double": descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="reference.proto", package="nodepool", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            _add(message, field, number, kind)
    return file


def _add(message: descriptor_pb2.DescriptorProto, field: str, number: int, kind: str) -> None:
    repeated, kind = kind.startswith(("repeated ", "map ")), kind.removeprefix("repeated ")
    if kind.startswith("map "):
        entry_name = "".join(part.title() for part in field.split("_")) + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add(entry, "key", 1, "string")
        _add(entry, "value", 2, kind.removeprefix("map "))
        kind = f"{message.name}.{entry_name}"
    Field = descriptor_pb2.FieldDescriptorProto  # noqa: N806  (a class)
    made = message.field.add(
        name=field, number=number, label=Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
    )
    if kind in _TYPES:
        made.type = _TYPES[kind]
    else:
        made.type, made.type_name = Field.TYPE_MESSAGE, f".nodepool.{kind}"


class NodePoolClient:
    """The document's client, in its own words."""

    def __init__(self, channel: grpc.Channel) -> None:
        pool = descriptor_pool.DescriptorPool()
        pool.Add(_file())
        self.messages: dict[str, Callable[..., Any]] = {
            name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"nodepool.{name}")) for name in _FIELDS
        }
        self.calls: dict[str, Callable[..., Any]] = {
            call: channel.unary_unary(
                f"/nodepool.NodeManager/{call}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=self.messages[f"{call}Response"].FromString,  # type: ignore[attr-defined]
            )
            for call in _CALLS
        }

    def call(self, call: str, **said: Any) -> Any:
        return self.calls[call](self.messages[f"{call}Request"](**said), timeout=10)

    def register_node(self, node_id: str) -> bool:
        return bool(
            self.call(
                "RegisterNode",
                node_id=node_id,
                ip_address="127.0.0.1",
                port=50052,
                cpu_cores=4,
                memory_gb=8,
                disk_gb=100,
                capabilities=["docker", "python"],
            ).success
        )

    def send_heartbeat(self, node_id: str, status: str) -> bool:
        return bool(self.call("UpdateNodeStatus", node_id=node_id, status=status, timestamp=1).success)

    def get_assigned_tasks(self, node_id: str) -> list[Any]:
        return list(self.call("GetAssignedTasks", node_id=node_id).tasks)

    def report_task_result(self, node_id: str, task_id: str, result: dict[str, Any], status: str) -> bool:
        request = {"task_id": task_id, "node_id": node_id, "status": status, "timestamp": 1}
        return bool(self.call("ReportTaskResult", result=self.messages["TaskResult"](**result), **request).success)


def _works_off(address: str) -> list[str]:
    """What the document's worker does with three tasks; blocks."""
    done = []
    with grpc.insecure_channel(address) as channel:
        client = NodePoolClient(channel)
        assert client.register_node("worker-001")
        assert client.send_heartbeat("worker-001", "idle")
        while tasks := client.get_assigned_tasks("worker-001"):
            (task,) = tasks
            assert client.send_heartbeat("worker-001", "busy")
            assert client.get_assigned_tasks("worker-001") == []  # one attempt at a time
            assert dict(task.input_files) == {"given.txt": b"an uploaded input"}
            if task.code == "fails":
                result = {"status": "failed", "exit_code": 3, "logs": "no luck", "error": "it failed"}
            else:
                data = {"output.txt": f"did {task.code}".encode()}
                result = {"status": "completed", "exit_code": 0, "logs": "fine", "result_data": data}
            assert client.report_task_result("worker-001", task.id, result, str(result["status"]))
            assert client.report_task_result("worker-001", task.id, result, str(result["status"]))  # a repeat
            done.append(task.id)
    return done


async def test_the_documents_worker_works_at_our_pool(tmp_path: Path) -> None:
    pb = pool_parts.pb
    async with pool_parts.running(tmp_path) as at:
        data = b"an uploaded input"
        given = pb.ArtifactRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        await at.tasks.UploadInput(iter([pb.UploadInputRequest(sha256=given.sha256, size=given.size, data=data)]))
        tasks = [
            pb.Task(code=code, memory_limit="512m", input_artifacts={"given.txt": given})
            for code in ("this", "fails", "that")
        ]
        ids = await at.submit(*tasks)
        assert await asyncio.to_thread(_works_off, at.pool.address) == ids
        infos = [await at.info(task_id) for task_id in ids]
        assert [info.state for info in infos] == ["completed", "failed", "completed"]
        assert [info.attempt for info in infos] == [1, 1, 1]
        assert (infos[1].result.exit_code, infos[1].result.reason) == (3, "nonzero_exit")
        request = pb.DownloadResultRequest(task_id=ids[2], name="output.txt")
        assert [part.data async for part in at.tasks.DownloadResult(request)] == [b"did that"]
        (node,) = (await at.tasks.ListNodes(pb.ListNodesRequest())).nodes
        assert (node.status, node.capacity.memory_bytes) == ("busy", 8 * 1024**3)


async def test_its_heartbeats_alone_keep_its_lease(tmp_path: Path) -> None:
    pb = pool_parts.pb
    async with pool_parts.running(tmp_path, lease_seconds=0.4) as at:
        (task_id,) = await at.submit()
        worker = pool_parts.Worker(at, "worker-001", "")
        await at.nodes.RegisterNode(pb.RegisterNodeRequest(node_id="worker-001", cpu_cores=4, memory_gb=8, disk_gb=9))
        (task,) = (await worker.poll()).tasks
        loop = asyncio.get_running_loop()
        until = loop.time() + 1.0
        while loop.time() < until:
            await worker.beat()
        assert (await at.info(task_id)).attempt == 1
        task.attempt = 0
        assert (await worker.report(task)).verdict == pb.VERDICT_ACCEPTED
