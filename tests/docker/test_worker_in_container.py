"""A worker that is itself in a container, with only the engine's socket, runs tasks: no path of the host is used."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import re
import sys
import tarfile
import uuid
from pathlib import Path

import pytest

import hivemind_worker
from hivemind_worker.runtime.docker import engine as engines

pytestmark = pytest.mark.docker

INSIDE = """
import asyncio, hashlib, json, pathlib, sys
from hivemind_worker.artifacts import store as stores
from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import image_access, pulled
from hivemind_worker.runtime.docker import docker_executor
from hivemind_worker.tasks import outcome, plan

class Quiet:
    def phase(self, phase): pass
    def note(self, text): pass
    def stored(self, artifacts): pass
    def output(self, stream, offset, data): pass

async def main(node, image):
    listed = docker_executor.Supply(access=pulled.Access(image_access.Rules(images=("**",))))
    store = stores.Store(pathlib.Path("/state")); store.prepare()
    engine = engines.Engine("unix:///engine.sock")
    parts = {"engine": engine, "store": store, "node_id": node, "boot_id": "boot-1", "supply": listed}
    under_test = docker_executor.DockerExecutor(**parts)
    await under_test.open()
    found = []
    artifact = store.put(b"x" * 3_000_000)
    files = (plan.InputFile("inline", content=b"from inside"), plan.InputFile("stored", artifact=artifact))
    for disk in (64 << 20, 1 << 30):
        limits = outcome.Limits(256 << 20, 100_000, 60.0, disk, 64)
        caps = plan.Caps(65536, 65536, 1 << 30, 100, 8, 60.0)
        argv = ("/bin/sh", "-c", "cat inline; sha256sum < stored; cp stored results/back")
        asked = plan.RunPlan("task-in-container", 1, image, argv, limits, caps, files=files)
        ended = await under_test.run(asked, stopping.Stop(), Quiet())
        back = [hashlib.sha256(b"".join(store.read(f.artifact.sha256))).hexdigest() for f in ended.results]
        found.append([ended.status, ended.error, ended.logs.text.decode(), back])
    await under_test.close()
    print(json.dumps(found))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_worker_in_a_container_runs_tasks(docker_url: str, python_image: str) -> None:
    if not docker_url.startswith("unix://"):
        pytest.skip("mounts the engine's socket into a container, so it needs one")
    node = f"test-{uuid.uuid4().hex[:12]}"
    engine = engines.Engine(docker_url)
    await engine.connect()
    body = {
        "Image": python_image,
        "Entrypoint": ["python3", "/worker/inside.py", node, python_image],
        "Env": ["PYTHONPATH=/worker/packages"],
        "HostConfig": {
            "NetworkMode": "none",
            "Binds": [f"{docker_url.removeprefix('unix://')}:/engine.sock"],
        },
        "AttachStdout": True,
        "AttachStderr": True,
    }
    worker = await engine.create(f"hivemind-test-worker-{node}", body)
    try:
        await engine.put_archive(worker, "/", _packages())
        stream = await engine.attach(worker)
        try:
            await engine.start(worker)
            said = b""
            while piece := await stream.read():
                said += piece
            code = await engine.wait(worker, seconds=60)
        finally:
            await stream.close()
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        assert code == 0, f"(packages are of Python {version}) {stream.complaint.decode()}"
        found = json.loads(said)
    finally:
        await engine.remove(worker)
        left = await engine.containers(f"io.hivemind.node-id={node}")
        volumes = await engine.volumes(f"io.hivemind.node-id={node}")
        await engine.close()
    whole = hashlib.sha256(b"x" * 3_000_000).hexdigest()
    for status, error, text, back in found:
        assert status == "completed", error
        assert text.startswith("from inside")
        assert text.removeprefix("from inside").split()[0] == back[0] == whole
    assert not left
    assert not volumes


def _packages() -> bytes:
    """Our package and what an executor imports, from the environment of this test."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        package = Path(hivemind_worker.__file__).parent
        tar.add(package, "worker/packages/hivemind_worker", filter=_no_caches)
        for name in _needed({"aiodocker", "h11", "platformdirs", "pydantic", "structlog", "uv"}):
            for file in importlib.metadata.files(name) or ():
                path = Path(str(file.locate()))
                if ".." not in file.parts and path.is_file():
                    tar.add(path, f"worker/packages/{file}", filter=_no_caches)
        script = tarfile.TarInfo("worker/inside.py")
        script.size = len(INSIDE.encode())
        tar.addfile(script, io.BytesIO(INSIDE.encode()))
    return made.getvalue()


def _no_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name else entry


def _needed(wanted: set[str]) -> set[str]:
    found: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found.add(name)
        lines = importlib.metadata.requires(name) or ()
        wanted |= {re.split(r"[^\w.-]", line)[0] for line in lines if "extra ==" not in line and _here(line)}
    return found


def _here(line: str) -> bool:
    """Whether a requirement is installed: those for other systems and versions are not."""
    try:
        importlib.metadata.distribution(re.split(r"[^\w.-]", line)[0])
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
