"""The worker's image, built from the checkout and from a release's wheel, works as the reference document starts it."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import release
import test_network
import waiting
from installed import HIVEMIND, WHATEVER

from hivemind_worker.runtime.docker import engine as engines

pytestmark = [pytest.mark.docker, pytest.mark.long, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
NAME = f"hivemind-test/worker:{uuid.uuid4().hex[:8]}"


def _certificates() -> bytes:
    bundle = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().openssl_cafile
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.add(os.path.realpath(bundle), "etc/ssl/certs/ca-certificates.crt")
    return tar.getvalue()


def _docker(docker_url: str, *words: str) -> str:
    command = ["docker", "-H", docker_url, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout.strip()


@pytest.fixture
async def base(docker_url: str, python_image: str) -> str:
    """The image with Python, and the certificates that this site's own TLS needs: its owner's business, as in use."""
    engine = engines.Engine(docker_url)
    await engine.connect()
    try:
        container = await engine.create(f"hivemind-test-{uuid.uuid4().hex[:8]}", {"Image": python_image, "Cmd": ["x"]})
        await engine.put_archive(container, "/", _certificates())
    finally:
        await engine.close()
    change = "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt"
    _docker(docker_url, "commit", "-c", change, container, f"{NAME}-base")
    _docker(docker_url, "rm", container)
    return f"{NAME}-base"


@pytest.fixture(params=["checkout", "release"])
def image(docker_url: str, base: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if shutil.which("docker") is None:
        pytest.skip("no docker command here: the image is built with it")
    context = "."
    if request.param == "release":
        assert release.main([str(tmp_path)]) == 0
        context = str(tmp_path / release.NAME)
    _docker(docker_url, "build", "--network=host", "--build-arg", f"BASE={base}", "-t", NAME, context)
    yield NAME
    _docker(docker_url, "rmi", "-f", NAME, base)


def test_the_image_runs_tasks_on_the_engine_beside_it(docker_url: str, image: str, tmp_path: Path) -> None:
    if not docker_url.startswith("unix://"):
        pytest.skip("mounts the engine's socket into a container, so it needs one")
    host = test_network.host_of(docker_url)
    with socket.socket() as free:
        free.bind((host, 0))
        pool_at = f"{host}:{free.getsockname()[1]}"
    pool = subprocess.Popen([HIVEMIND, "pool", f"--listen={pool_at}", "--insecure", f"--state-dir={tmp_path}"])
    worker = ""
    try:
        variables = {"NODE_ID": "worker-001", "NODE_POOL_ADDRESS": pool_at, "HIVEMIND_INSECURE": "true"}
        variables |= WHATEVER
        said = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
        mount = f"{docker_url.removeprefix('unix://')}:/var/run/docker.sock"
        worker = _docker(docker_url, "run", "-d", "--network=host", *said, "-v", mount, image)
        waiting.wait_for(lambda: _nodes(pool_at) == ["worker-001"], description="the worker registers", seconds=60)
        task = tmp_path / "task.json"
        task.write_text(json.dumps({"command": "echo hello", "docker_image": "hivemind-test/busybox:1"}))
        (submitted,) = _hivemind(pool_at, "submit", str(task))
        (ended,) = _hivemind(pool_at, "wait", submitted["id"])
        assert (ended["status"], ended["isolation"]) == ("completed", "docker")
        look = ("inspect", "-f", "{{.State.Health.Status}}", worker)
        waiting.wait_for(lambda: _docker(docker_url, *look) == "healthy", description="it is healthy", seconds=90)
        _docker(docker_url, "stop", "-t", "30", worker)
        assert _docker(docker_url, "inspect", "-f", "{{.State.ExitCode}}", worker) == "0"
    finally:
        if worker:
            _docker(docker_url, "rm", "-f", "-v", worker)
        pool.terminate()
        pool.wait(30)


def _nodes(pool_at: str) -> list[str]:
    return [node["node_id"] for node in _hivemind(pool_at, "nodes")]


def _hivemind(pool_at: str, *words: str) -> list[dict[str, str]]:
    command: list[str | Path] = [HIVEMIND, *words, f"--node-pool={pool_at}", "--insecure", "--json"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [json.loads(line) for line in said.splitlines()]
