"""Environments on images as people have them: with packages of their own, without a Python, with one that is broken."""

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

from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.environments import sources as sourcing
from hivemind_worker.tasks import outcome

pytestmark = pytest.mark.docker


@pytest.fixture
def index() -> Iterator[package_index.Index]:
    with package_index.serving() as made:
        yield made


@asynccontextmanager
async def image_with(url: str, base: str, files: Mapping[str, bytes]) -> AsyncIterator[str]:
    """An image made of another and some files, which no program has run in."""
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
        container = await engine.create(name, {"Image": base, "Cmd": ["true"]})
        await engine.put_archive(container, "/", packed.getvalue())
        await engine.commit(container, name, "1", {})
        await engine.remove(container)
        yield f"{name}:1"
    finally:
        await engine.remove(name)
        await engine.remove_image(f"{name}:1")
        await engine.close()


def sources(url: str, index: package_index.Index) -> sourcing.Sources:
    return sourcing.Sources(index_url=f"http://{package_index.seen_from_containers(url)}:{index.port}/simple")


async def test_packages_of_the_image_are_seen_and_preferred(
    docker_url: str, python_image: str, index: package_index.Index, tmp_path: Path
) -> None:
    for version in ("1.0", "2.0"):
        index.offer("hm-base", version)
    index.offer("hm-probe", "1.0", "hm-base>=1")
    where = "usr/lib/python3/dist-packages"
    about = b"Metadata-Version: 2.1\nName: hm-base\nVersion: 1.0\n"
    files = {
        f"{where}/hm_base.py": b"VERSION = 'of the image'\n",
        f"{where}/hm_base-1.0.dist-info/METADATA": about,
        f"{where}/hm_base-1.0.dist-info/RECORD": b"hm_base.py,,\nhm_base-1.0.dist-info/METADATA,,\n",
    }
    show = "import hm_base, hm_probe; print(hm_base.VERSION, hm_probe.VERSION)"
    async with (
        image_with(docker_url, python_image, files) as image,
        attempts.docker_bench(docker_url, image, tmp_path, sources(docker_url, index)) as bench,
    ):
        ended = await bench.python(show, requirements=("hm-probe",))
        newer = await bench.python(show, requirements=("hm-base>=2", "hm-probe"))
    assert (ended.error, ended.logs.text) == ("", b"of the image 1.0\n")
    assert (newer.error, newer.logs.text) == ("", b"2.0 1.0\n")
    assert "hm_base-1.0-py3-none-any.whl" not in index.downloads()


async def test_an_image_without_a_python_is_told(
    docker_url: str, busybox_image: str, index: package_index.Index, tmp_path: Path
) -> None:
    async with attempts.docker_bench(docker_url, busybox_image, tmp_path, sources(docker_url, index)) as bench:
        ended = await bench.shell("true", requirements=("hm-probe",))
    assert ended.reason is outcome.Reason.DEPENDENCY_FAILED
    assert "no python3" in ended.error


async def test_a_python_that_does_not_work_is_told_in_its_own_words(
    docker_url: str, busybox_image: str, index: package_index.Index, tmp_path: Path
) -> None:
    files = {"bin/python3": b"#!/bin/sh\necho 'ModuleNotFoundError: no json here' >&2\nexit 1\n"}
    async with (
        image_with(docker_url, busybox_image, files) as image,
        attempts.docker_bench(docker_url, image, tmp_path, sources(docker_url, index)) as bench,
    ):
        ended = await bench.shell("true", requirements=("hm-probe",))
    assert ended.reason is outcome.Reason.DEPENDENCY_FAILED
    assert "no json here" in ended.error
