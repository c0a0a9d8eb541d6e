"""`hivemind run -r` and `hivemind images` as a user types them, with an index of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import engine_api
import grpc
import installed
import package_index
import pytest
import waiting

from hivemind_worker.wire import calls


@pytest.fixture
def index() -> Iterator[package_index.Index]:
    with package_index.serving() as made:
        yield made


@pytest.fixture
def user(
    fenced: installed.Shell, index: package_index.Index, request: pytest.FixtureRequest
) -> Iterator[installed.Shell]:
    """A user whose packages come from that index."""
    engine = request.getfixturevalue("docker_url") if "docker" in fenced.flags else ""
    fenced.environment["PIP_INDEX_URL"] = f"http://127.0.0.1:{index.port}/simple"
    with package_index.open_folder() as cache:
        fenced.environment["HIVEMIND_CACHE_DIR"] = str(cache)
        yield fenced
    if engine:
        label = '{"label":["io.hivemind.environment"]}'
        for image in engine_api.get(engine, "/images/json", filters=label):
            if f"hm-{index.port}==" in image["Labels"].get("io.hivemind.contents", ""):
                engine_api.delete(engine, f"/images/{image['Id']}")


def test_a_script_gets_the_packages_it_names_and_the_next_one_finds_them(
    user: installed.Shell, index: package_index.Index, tmp_path: Path
) -> None:
    index.offer(f"hm-{index.port}", "4.2")
    (tmp_path / "script.py").write_text(f"import hm_{index.port} as it, sys\nprint(it.VERSION, *sys.argv[1:])\n")
    began = time.time()
    first = user.run("-r", f"hm-{index.port}>=4", "script.py", "x")
    assert (first.code, first.text) == (0, "4.2 x\n"), first.err
    assert f"making an environment with hm-{index.port}>=4" in first.err
    assert "left out" not in first.err
    index.asked.clear()
    second = user.run("-r", f"HM_{index.port} >= 4", "script.py", "y")
    assert (second.code, second.text, second.err) == (0, "4.2 y\n", "")
    assert index.asked == []
    rows = [
        row
        for row in user.hivemind("images", "--json", *user.flags[:4]).objects
        if row["kind"] == "environment" and row["ours"]
    ]
    (row,) = rows
    assert row["last_used"] >= began - 1
    assert row["bytes"] > 0
    assert not row["kept_because"]
    shown = user.hivemind("images", *user.flags[:4])
    assert f"hm-{index.port}==4.2" in shown.text
    assert shown.code == 0


def test_requirements_may_stand_in_a_file(user: installed.Shell, index: package_index.Index, tmp_path: Path) -> None:
    name = f"hm-{index.port}"
    index.offer(name, "1.0")
    (tmp_path / "script.py").write_text(f"import hm_{index.port} as it\nprint(it.VERSION)\n")
    (tmp_path / "requirements.txt").write_text(f"# what it needs\n\n{name}>=1  # the newest\n")
    said = user.run("-r", "requirements.txt", "script.py")
    assert (said.code, said.text) == (0, "1.0\n"), said.err
    assert "no such file" in user.run("-r", "missing.txt", "script.py").err


def test_a_build_whose_worker_was_killed_ends_by_itself(
    user: installed.Shell, index: package_index.Index, tmp_path: Path
) -> None:
    before = _fetchers(user)
    (tmp_path / "script.py").write_text("print('never')\n")
    index.silent = True
    running = user.start("run", *user.flags, "-r", f"hm-{index.port}", "script.py")
    with running:
        waiting.wait_for(lambda: index.asked, description="the index is asked", seconds=30)
        fetchers = _fetchers(user) - before
        running.kill()
    assert fetchers
    waiting.wait_for(lambda: not fetchers & _fetchers(user), description="the fetcher has ended", seconds=15)


def _fetchers(user: installed.Shell) -> set[str]:
    """The processes in which packages are fetched now."""
    cache = user.environment["HIVEMIND_CACHE_DIR"].encode()
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if cache in path.read_bytes():
                found.add(path.parent.name)
    return found


def test_what_cannot_be_installed_is_said_in_the_resolvers_words(
    user: installed.Shell, index: package_index.Index, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text("print('never')\n")
    said = user.run("-r", "hm-missing", "script.py")
    assert (said.code, said.out) == (126, b"")
    assert "dependency_failed" in said.err
    assert "hm-missing was not found" in said.err


@pytest.mark.parametrize(
    "hostile",
    [["--index-url=http://127.0.0.1:1/simple"], ["six\nRUN id"], ["six"] * 10_000],
    ids=["option", "newline", "many"],
)
def test_i06_what_is_no_requirement_is_an_invalid_task_and_no_network_is_touched(
    shell: installed.Shell, index: package_index.Index, tmp_path: Path, hostile: list[str]
) -> None:
    task = tmp_path / "task.json"
    task.write_text(json.dumps({"code": "print('never')", "requirements": hostile}))
    shell.environment["PIP_INDEX_URL"] = f"http://127.0.0.1:{index.port}/simple"
    said = shell.hivemind("submit", str(task))
    assert said.code == 2
    assert "requirements" in said.err
    assert index.asked == []


@pytest.mark.sandbox
def test_i06_a_pool_and_a_node_refuse_it_too(up: installed.Up, index: package_index.Index) -> None:
    async def submit() -> None:
        async with grpc.aio.insecure_channel(up.address) as channel:
            task = calls.pb.Task(code="print()", requirements=["--index-url=http://127.0.0.1:1"])
            await calls.task_manager(channel).SubmitTasks(calls.pb.SubmitTasksRequest(tasks=[task]))

    with pytest.raises(grpc.aio.AioRpcError, match="requirements"):
        asyncio.run(submit())
    assert index.asked == []
