"""GPUs, through NVIDIA's own binding, against a stand-in for the driver's library: no machine of ours has one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hivemind_worker.worker.machine import accelerators

MEASURE = """
import json
from hivemind_worker.worker.machine import accelerators
gpus = accelerators.Accelerators()
found = [gpu.as_json() for gpu in gpus.measure()]
gpus.close()
print(json.dumps({"found": found, "why_none": gpus.why_none}))
"""

WORKER = """
import asyncio, json, pathlib, sys
from hivemind_worker.wiring import workers
from hivemind_worker.settings import sources

async def main():
    folder = pathlib.Path(sys.argv[1])
    settings = sources.load({"state_dir": str(folder), "temp_dir": str(folder), "isolation": "sandbox"}, {})
    worker = await workers.build(settings, print)
    print(json.dumps({"gpus": worker.snapshot().capacity.gpus}))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the stand-in, under the driver's name."""
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("nvml_stand_in.c")
    output = str(folder / "libnvidia-ml.so.1")
    # The machine's own compiler where there is one: zig's first makes what it links with, half a minute long.
    compiler = ["cc"] if shutil.which("cc") else [sys.executable, "-m", "ziglang", "cc"]
    command = [*compiler, "-shared", "-fPIC", "-O1", "-o", output, str(source)]
    subprocess.run(command, check=True, timeout=100)
    return folder


def _run(script: str, library: Path, *words: str, **variables: str) -> list[str]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library), **variables}
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def _measured(library: Path, **variables: str) -> dict[str, Any]:
    *_, last = _run(MEASURE, library, **variables)
    found = json.loads(last)
    assert isinstance(found, dict)
    return found


def test_each_device_is_told_by_its_id_with_what_it_is_busy_with(library: Path) -> None:
    lines = _run(MEASURE, library, FAKE_GPUS="2")
    assert lines[0] == "shut down"  # the driver is let go
    first, second = json.loads(lines[-1])["found"]
    gib = 1024**3
    assert first == {
        "id": "GPU-00000001", "name": "Stand-in 9000", "percent": 25.0, "memory": {"total": 8 * gib, "used": gib},
    }  # fmt: skip
    assert (second["id"], second["percent"]) == ("GPU-00000002", None)


def test_a_lost_device_is_left_out_and_the_others_stay(library: Path) -> None:
    found = _measured(library, FAKE_GPUS="3", FAKE_LOST="1")["found"]
    assert [gpu["id"] for gpu in found] == ["GPU-00000001", "GPU-00000003"]


def test_a_library_without_a_driver_is_no_gpu_and_no_error(library: Path) -> None:
    found = _measured(library, FAKE_GPUS="2", FAKE_INIT="9")
    assert found["found"] == []
    assert "no NVIDIA driver answers: Driver Not Loaded" in found["why_none"]


def test_where_there_is_no_library_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as where the extra is not installed
    gpus = accelerators.Accelerators()
    assert gpus.measure() == ()
    assert "pip install hivemind-worker[gpu]" in gpus.why_none
    assert gpus.measure() == ()
    gpus.close()


@pytest.mark.sandbox
def test_a_worker_offers_the_gpus_that_there_are(library: Path, tmp_path: Path) -> None:
    *_, last = _run(WORKER, library, str(tmp_path), FAKE_GPUS="2")
    assert json.loads(last) == {"gpus": 2}
