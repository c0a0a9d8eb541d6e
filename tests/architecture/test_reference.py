"""docs/reference.md leaves out nothing that the reference document names, and each row leads to code and to a test."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "hivemind_worker"
PAGE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| the document"))
]
CODE = re.compile(r"`([^`]+)`")
# Every class, method, function, option and file that the document names.
TEXT = """
WorkerNode start register_with_node_pool start_heartbeat start_task_polling execute_task report_result NodePoolClient
register_node send_heartbeat get_assigned_tasks report_task_result ping TaskExecutor DockerTaskExecutor
ensure_network_exists prepare_task_data collect_results cleanup_work_dir DockerManager execute_python_task
execute_custom_docker_task execute_ml_task execute_sklearn_task execute_pytorch_task execute_tensorflow_task
execute_data_processing_task execute_csv_analysis execute_image_processing execute_text_analysis ResourceMonitor
start_monitoring stop_monitoring _monitor_loop collect_metrics get_current_metrics is_resource_available
update_interval ContainerMonitor monitor_container parse_container_stats StructuredLogger log_task_event
log_system_event HealthChecker check_health _check_node_pool_connection _check_docker_service _check_system_resources
_check_disk_space connect_with_retry wait_for_resources TaskPreloader preload_image ParallelTaskExecutor submit_task
check_completed_tasks MemoryManager check_memory_usage cleanup_memory DiskManager cleanup_old_files WorkerConfig
NODE_ID NODE_POOL_ADDRESS MAX_CPU_CORES MAX_MEMORY_GB MAX_DISK_GB TASK_TIMEOUT MAX_CONCURRENT_TASKS HEARTBEAT_INTERVAL
DOCKER_ENABLED DOCKER_NETWORK WORK_DIR TEMP_DIR LOG_DIR docker_image command mem_limit cpu_quota timeout input_files
code requirements model_type training_data processing_type input_data worker_node.py task_executor.py
resource_monitor.py docker_manager.py nodepool.proto nodepool_pb2.py nodepool_pb2_grpc.py requirements.txt Dockerfile
run_task.sh build.py make.py file.ico README.md README.en.md static/ templates/ hivemind_worker/ install.sh
start_worker.cmd
"""
NAMED = sorted(set(TEXT.split()))


def test_nothing_that_the_document_names_is_missing() -> None:
    rows = "\n".join([*(row[0] for row in ROWS), *(line for line in PAGE.splitlines() if line.startswith("- "))])
    assert [name for name in NAMED if not re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", rows)] == []


def test_each_row_leads_to_code_and_to_a_test() -> None:
    assert len(ROWS) > 50
    for row in ROWS:
        assert len(row) == 3, row
        _, here, proofs = row
        places = [each for each in CODE.findall(here) if "/" in each or "::" in each or file(each) or "." in each]
        tests = CODE.findall(proofs)
        assert places, row
        assert tests, row
        for place in places:
            assert stands(place), f"{place} is not there"
        for test in tests:
            assert test.startswith("tests/")
            assert stands(test), f"{test} is not there"


def test_the_look_finds_what_is_wrong() -> None:
    assert stands("telemetry/logs.py::StructuredLogger.log_task_event")
    assert stands("tests/architecture/test_reference.py::test_the_look_finds_what_is_wrong")
    assert not stands("telemetry/logs.py::StructuredLogger.no_such_thing")
    assert not stands("telemetry/no_such_file.py")


def stands(place: str) -> bool:
    """Whether a file, and a class, function or method in it after `::`, is there."""
    path, _, name = place.partition("::")
    found = file(path)
    return found is not None and (not name or name in names(found))


def file(path: str) -> Path | None:
    return next((base / path for base in (PACKAGE, ROOT) if (base / path).exists()), None)


@functools.cache
def names(path: Path) -> frozenset[str]:
    """The classes and functions of a file, methods with their class before them."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            found |= {f"{node.name}.{method.name}" for method in methods}
    return frozenset(found)
