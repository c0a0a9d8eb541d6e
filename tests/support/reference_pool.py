"""A Node Pool written with the calls and fields of the reference document alone, as a program of its own.

    python reference_pool.py FOLDER

It compiles the minimal contract below, serves it on a free port (printed), hands out the tasks in FOLDER/tasks.json
again and again until each is reported, as a list of assigned tasks does, and appends what it hears to
FOLDER/heard.jsonl. It knows no session, no attempt, no log stream, no upload. It shares no line with the product.
"""

from __future__ import annotations

import base64
import importlib
import json
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc

CONTRACT = """
syntax = "proto3";
package nodepool;

service NodeManager {
  rpc RegisterNode(RegisterNodeRequest) returns (RegisterNodeResponse);
  rpc UpdateNodeStatus(UpdateNodeStatusRequest) returns (UpdateNodeStatusResponse);
  rpc GetAssignedTasks(GetAssignedTasksRequest) returns (GetAssignedTasksResponse);
  rpc ReportTaskResult(ReportTaskResultRequest) returns (ReportTaskResultResponse);
}

message RegisterNodeRequest {
  string node_id = 1;
  string ip_address = 2;
  int32 port = 3;
  double cpu_cores = 4;
  double memory_gb = 5;
  double disk_gb = 6;
  repeated string capabilities = 7;
}
message RegisterNodeResponse { bool success = 1; string message = 2; }
message UpdateNodeStatusRequest { string node_id = 1; string status = 2; int64 timestamp = 3; }
message UpdateNodeStatusResponse { bool success = 1; string message = 2; }
message GetAssignedTasksRequest { string node_id = 1; }
message Task {
  string id = 1;
  string docker_image = 3;
  string command = 4;
  map<string, bytes> input_files = 9;
  string memory_limit = 12;
  int64 cpu_quota = 13;
  double timeout = 14;
}
message GetAssignedTasksResponse { repeated Task tasks = 1; }
message TaskResult {
  string status = 1;
  int32 exit_code = 2;
  string logs = 3;
  string error = 4;
  map<string, bytes> result_data = 5;
}
message ReportTaskResultRequest {
  string task_id = 1;
  string node_id = 2;
  TaskResult result = 3;
  string status = 4;
  int64 timestamp = 5;
}
message ReportTaskResultResponse { bool success = 1; string message = 2; }
"""


def compiled(folder: Path) -> tuple[Any, Any]:
    """Compile the contract into ``folder`` and return its messages and its services."""
    from grpc_tools import protoc  # type: ignore[import-untyped]  # noqa: PLC0415  (this program alone compiles)

    (folder / "reference.proto").write_text(CONTRACT)
    code = protoc.main(["protoc", f"-I{folder}", f"--python_out={folder}", f"--grpc_python_out={folder}",
                        str(folder / "reference.proto")])  # fmt: skip
    assert code == 0
    sys.path.insert(0, str(folder))
    return importlib.import_module("reference_pb2"), importlib.import_module("reference_pb2_grpc")


def serve(folder: Path) -> None:
    """Serve until the standard input ends."""
    messages, services = compiled(folder)
    tasks = {task["id"]: task for task in json.loads((folder / "tasks.json").read_text())}
    lock = threading.Lock()

    def heard(call: str, **said: Any) -> None:
        with lock, (folder / "heard.jsonl").open("a") as file:
            file.write(json.dumps({"call": call, **said}) + "\n")

    class NodeManager(services.NodeManagerServicer):  # type: ignore[misc,name-defined]
        def RegisterNode(self, request: Any, _: Any) -> Any:  # noqa: N802
            heard("RegisterNode", node_id=request.node_id, cpu_cores=request.cpu_cores, ip=request.ip_address)
            return messages.RegisterNodeResponse(success=True)

        def UpdateNodeStatus(self, request: Any, _: Any) -> Any:  # noqa: N802
            heard("UpdateNodeStatus", status=request.status)
            return messages.UpdateNodeStatusResponse(success=True)

        def GetAssignedTasks(self, _: Any, __: Any) -> Any:  # noqa: N802
            with lock:
                given = [{**task, "input_files": {name: text.encode() for name, text in
                          task.get("input_files", {}).items()}} for task in tasks.values()]  # fmt: skip
            heard("GetAssignedTasks", given=[task["id"] for task in given])
            return messages.GetAssignedTasksResponse(tasks=[messages.Task(**task) for task in given])

        def ReportTaskResult(self, request: Any, _: Any) -> Any:  # noqa: N802
            result = request.result
            heard(
                "ReportTaskResult",
                task_id=request.task_id,
                status=request.status,
                result={
                    "status": result.status,
                    "exit_code": result.exit_code,
                    "logs": result.logs,
                    "error": result.error,
                    "result_data": {name: base64.b64encode(data).decode() for name, data in result.result_data.items()},
                },
            )
            if request.status in {"completed", "failed", "cancelled"}:
                with lock:
                    tasks.pop(request.task_id, None)
            return messages.ReportTaskResultResponse(success=True)

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    services.add_NodeManagerServicer_to_server(NodeManager(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)  # noqa: T201  (how the test learns where it is)
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
