"""Packages are fetched by our own program, in a sandbox or without one; the index's sums decide what is unpacked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import package_index
import pytest

from hivemind_worker import errors
from hivemind_worker.concurrency import supervision
from hivemind_worker.runtime.environments import making, target
from hivemind_worker.runtime.environments import sources as sourcing
from hivemind_worker.runtime.sandbox import workshop

PYTHON = target.Target("3.13.1", "x86_64", "glibc", (2, 36), "/usr/local/bin/python3.13", "00000000")


@pytest.fixture
def index() -> Iterator[package_index.Index]:
    with package_index.serving() as made:
        yield made


def raised(name: str, error: BaseException) -> None:
    raise AssertionError(name) from error


async def install(shop: workshop.Workshop, *requirements: str) -> dict[str, str]:
    """The text of each module that was unpacked."""
    jobs = supervision.Jobs("test", raised)
    try:
        async with shop.open(jobs, lambda _: None) as session:
            resolved = await session.resolve(requirements, PYTHON)
            await session.install(resolved, PYTHON, inherit=False)
            site = session.staged.environment / "lib/python3.13/site-packages"
            return {path.name: path.read_text() for path in site.glob("*.py")}
    finally:
        await jobs.close(30.0)


@pytest.mark.parametrize(
    "path", [pytest.param("", marks=pytest.mark.sandbox), "/nonexistent"], ids=["sandbox", "plain"]
)
async def test_what_was_fetched_is_checked_each_time_it_is_used(
    index: package_index.Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    if path:
        monkeypatch.setenv("PATH", path)  # no bubblewrap
    index.credentials = "reader:s3cret"
    index.offer("hm-probe", "1.0")
    sources = sourcing.Sources(index_url=f"http://reader:s3cret@127.0.0.1:{index.port}/simple")
    shop = workshop.Workshop(cache=tmp_path, sources=sources)
    good = {"hm_probe.py": "VERSION = '1.0'\n"}
    assert await install(shop, "hm-probe") == good
    (stored,) = (tmp_path / "downloads/wheels").iterdir()
    stored.write_bytes(b"of the attacker")
    assert await install(shop, "hm-probe") == good
    assert index.downloads() == ["hm_probe-1.0-py3-none-any.whl"] * 2
    assert not [path for path in (tmp_path / "environments").iterdir() if path.name]


async def test_a_wheel_that_is_not_what_the_index_promised_is_refused(
    index: package_index.Index, tmp_path: Path
) -> None:
    index.offer("hm-probe", "1.0")
    file, content = index.files.popitem()
    index.files[file] = content
    index.forged[file] = content + b"more"
    sources = sourcing.Sources(index_url=f"http://127.0.0.1:{index.port}/simple")
    with pytest.raises(errors.DependencyFailed, match="is not what the index says"):
        await install(workshop.Workshop(cache=tmp_path, sources=sources), "hm-probe")
    assert not list((tmp_path / "downloads/wheels").iterdir())


def test_another_program_that_unpacks_makes_other_environments() -> None:
    assert making.recipe().startswith("2-")
    assert dataclasses.replace(PYTHON, version="3.13.2").to_text() != PYTHON.to_text()
