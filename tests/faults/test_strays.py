"""L05: what a killed worker had begun to make is found by its mark and ended; what is another's stays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import left_processes
import mortal
import pytest
import pytest_asyncio
import waiting

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime import former_driver
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import hardening
from hivemind_worker.runtime.sandbox import life
from hivemind_worker.wire import calls

pb = calls.pb

# Bubblewrap whose parent was killed after the fork and before the child was bound to it: the child waits for ever, and
# has no child itself, which would bear no mark.
SHIM = """#!/bin/bash
(bash -c '
for fd in /proc/self/fd/*; do eval "exec ${fd##*/}>&-"; done 2>/dev/null
exec 3<> <(:)
: waits for ever; while :; do read -r -u 3; done' bwrap "$@" &)
exec %s "$@"
"""


@contextlib.contextmanager
def shim() -> Iterator[Path]:
    """A folder that everyone may enter, with a `bwrap` in it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="hivemind-test-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        (place / "bwrap").write_text(SHIM % "/usr/bin/bwrap")
        (place / "bwrap").chmod(0o755)
        yield place


@pytest_asyncio.fixture
async def worker(tmp_path: Path) -> AsyncIterator[mortal.Mortal]:
    words = ("--isolation=sandbox", "--log-format=json", "--heartbeat-interval=1", "--grace-seconds=1")
    with shim() as place:
        async with mortal.node(tmp_path, *words, pool={"lease_seconds": 10.0}) as made:
            made.extra_environment = {"PATH": f"{place}:{os.environ['PATH']}"}
            yield made
            if made.process is not None:
                await made.stop()
            left = left_processes.of_node(made.node_id, made.state)
            for pid in left:
                os.kill(pid, 9)
            assert not left
            made.process = None


def _waiting(worker: mortal.Mortal) -> set[int]:
    """Children that wait for a word of the dead."""
    found = left_processes.of_node(worker.node_id)
    return {pid for pid, command in found.items() if "waits for ever" in command}


@pytest.mark.long
@pytest.mark.sandbox
async def test_l05_a_child_of_bubblewrap_whose_parent_was_killed_is_gone_after_the_next_start(
    worker: mortal.Mortal,
) -> None:
    await worker.start()
    task_id = await worker.submit("sleep 600", max_attempts=1)

    async def runs() -> bool:
        return (await worker.at.info(task_id)).state == "running"

    await waiting.wait_until(runs, description="it runs", seconds=30)  # type: ignore[arg-type]
    before = _waiting(worker)
    assert before
    worker.kill()
    assert before <= _waiting(worker)
    await worker.start()
    assert not before & _waiting(worker), worker.log()
    assert (await worker.at.info(task_id)).state == "running"  # what is held on purpose is not taken for a stray
    await worker.at.tasks.CancelTasks(pb.CancelTasksRequest(task_ids=[task_id]))
    await worker.ended(task_id)


def started(
    *argv: str, mark: str = "", environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[bytes]:
    """A process of its own session, with a mark in its environment."""
    environment = {"PATH": os.defpath, **environment, **({life.VARIABLE: mark} if mark else {})}
    return subprocess.Popen(argv, env=environment, start_new_session=True)


async def test_l05_only_what_a_life_of_this_node_left_that_is_over_is_ended(tmp_path: Path) -> None:
    gone = started("true")
    gone.wait()
    over = life.Life(life.current("node-1").node, gone.pid, 1)
    marks = {
        "over": over.mark,
        "mine": life.current("node-1").mark,
        "of-another-node": life.Life(life.current("node-2").node, gone.pid, 1).mark,
    }
    made = {name: started("sleep", "600", mark=mark) for name, mark in marks.items()}
    made["argument"] = started("sh", "-c", "sleep 600; :", "sh", "--setenv", life.VARIABLE, over.mark)
    # What somebody has who looks for a mark, or writes of it, is his own.
    searches = (over.mark, f"grep {life.VARIABLE}={over.mark}", f"{life.VARIABLE}={over.mark}.txt", f"a{over.mark}")
    made |= {f"names it {at}": started("sh", "-c", "sleep 600; :", "sh", text) for at, text in enumerate(searches)}
    made["another variable"] = started("sleep", "600", environment={"MARK": over.mark, f"MY{life.VARIABLE}": over.mark})
    names = {name for name in made if name.startswith("names it")}
    try:
        await waiting.wait_until(
            lambda: len(left_processes.of_node("node-1")) == 8, description="the marks can be seen"
        )
        ended = await asyncio.to_thread(life.sweep, "node-1", tmp_path)
        assert set(ended) == {made["over"].pid, made["argument"].pid}
        assert {name for name, process in made.items() if process.poll() is None} == {
            "mine",
            "of-another-node",
            "another variable",
            *names,
        }
        assert await asyncio.to_thread(life.sweep, "node-1", own_too=True) == (made["mine"].pid,)
        assert made["of-another-node"].poll() is None
    finally:
        for name in ("argument", *names):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(made[name].pid, 9)
        for process in made.values():
            process.kill()
            process.wait()


@pytest.mark.serial  # other tests kill nodes that return
async def test_l05_what_a_node_left_that_never_returns_is_ended_by_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = started("true")
    gone.wait()
    node = f"node-{uuid.uuid4().hex}"
    over = life.Life(life.current(node).node, gone.pid, 1).mark
    holder = tmp_path / "holder.py"
    holder.write_text(f"import subprocess; subprocess.run(['sleep', '600'], env={ {life.VARIABLE: over} })")
    monkeypatch.setattr(life, "ABANDONED_SECONDS", 3.0)
    made = {
        "held": started(sys.executable, str(holder), "/its/state"),
        "lives": started("sleep", "600", mark=life.current(node).mark),
        "old": started("sleep", "600", mark=over),
    }
    try:
        await waiting.wait_until(lambda: len(left_processes.of_node(node)) == 3, description="the marks can be seen")
        held = set(left_processes.of_node(node)) - {made["old"].pid, made["lives"].pid}
        await waiting.wait_until(
            lambda: left_processes.age_seconds(made["old"].pid) > life.ABANDONED_SECONDS, description="it is old"
        )
        made["young"] = started("sleep", "600", mark=over)
        of_this = {stray.pid for stray in life.abandoned() if stray.life.node == life.current(node).node}
        assert of_this == {made["old"].pid}
        await former_driver.sweep_sandboxes("another node")
        assert made["old"].wait(10) == -9
        assert set(left_processes.of_node(node)) == {made["young"].pid, made["lives"].pid, *held}
    finally:
        for pid in left_processes.of_node(node):
            os.kill(pid, 9)
        for process in made.values():
            process.kill()
            process.wait()


async def test_l05_what_the_former_sandboxes_left_is_ended_by_a_worker_with_an_engine(tmp_path: Path) -> None:
    node_id = f"node-{uuid.uuid4().hex}"
    gone = started("true")
    gone.wait()
    names = {"node": node_id, "one command": life.one_command(), "another node": f"other {node_id}"}
    made = {
        name: started("sleep", "600", mark=life.Life(life.current(word).node, gone.pid, 1).mark)
        for name, word in names.items()
    }
    made["a command that runs"] = started("sleep", "600", mark=life.current(life.one_command()).mark)
    stop = stopping.Stop()
    node = former_driver.Node("docker", node_id, "unix:///nowhere", tmp_path)
    sweeping = asyncio.ensure_future(former_driver.loop(node, tmp_path)(stop))
    try:
        for name in ("node", "one command"):
            await waiting.wait_until(lambda: made[name].poll() is not None, description=f"{name} is ended")  # noqa: B023
        assert {name for name, process in made.items() if process.poll() is None} == {
            "another node",
            "a command that runs",
        }
    finally:
        stop.request(stopping.StopLevel.DRAIN, "the test ends")
        await sweeping
        for process in made.values():
            process.kill()
            process.wait()


@pytest.mark.docker
async def test_l05_what_the_former_containers_left_is_removed_by_a_worker_with_sandboxes(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    node_id = f"node-{uuid.uuid4().hex}"
    engine = engines.Engine(docker_url)
    await engine.connect()
    made = {}
    for name in (node_id, f"other-{node_id}"):
        labels = {hardening.NODE_LABEL: name, f"{hardening.LABEL}.boot-id": "former"}
        body = {
            "Image": busybox_image,
            "Cmd": ["sleep", "600"],
            "Labels": labels,
            "HostConfig": {"LogConfig": {"Type": "none", "Config": {}}},
        }
        made[name] = await engine.create(f"hivemind-test-{uuid.uuid4().hex[:12]}", body)
        await engine.start(made[name])
    stop = stopping.Stop()
    node = former_driver.Node("sandbox", node_id, docker_url, tmp_path)
    sweeping = asyncio.ensure_future(former_driver.loop(node, tmp_path)(stop))
    try:

        async def is_gone() -> bool:
            return not await engine.containers(f"{hardening.NODE_LABEL}={node_id}")

        await waiting.wait_until(is_gone, description="the container is removed", seconds=30)  # type: ignore[arg-type]
        assert await engine.containers(f"{hardening.NODE_LABEL}=other-{node_id}")
    finally:
        stop.request(stopping.StopLevel.DRAIN, "the test ends")
        await sweeping
        for container in made.values():
            await engine.remove(container)
        await engine.close()


# Any command of this user sweeps for all: those of the tests beside this one, too.
@pytest.mark.serial
@pytest.mark.sandbox
def test_l05_what_a_killed_command_left_is_gone_after_the_next_one(tmp_path: Path) -> None:
    with shim() as place:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HIVEMIND_")}
        environment |= {"PATH": f"{place}:{environment['PATH']}"}
        run = [*mortal.COMMAND, "run", "--isolation=sandbox", "--"]
        killed = subprocess.Popen([*run, "sleep", "600"], env=environment)

        def waits() -> set[int]:
            found = left_processes.of_node(life.one_command())
            return {pid for pid, command in found.items() if "waits for ever" in command}

        try:
            left = waiting.wait_for(waits, description="a child that waits for ever", seconds=60)
        finally:
            killed.kill()  # the command alone
            killed.wait()
        assert left & waits()
        environment["PATH"] = os.environ["PATH"]
        subprocess.run([*run, "true"], env=environment, check=True, capture_output=True)
        assert not left & waits()


INNER = """
import os, subprocess, sys
from hivemind_worker.runtime.sandbox import life
mark = life.current("node-1").mark
child = subprocess.Popen(["sleep", "600"], env={life.VARIABLE: mark})
print("made", flush=True)
sys.stdin.read()
os._exit(0)
"""


def inside_a_container() -> subprocess.Popen[bytes]:
    """A worker's process, number 1 of a PID namespace of its own, that has started a process with its mark."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", INNER]
    inner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert inner.stdout
    assert inner.stdout.readline() == b"made\n"
    return inner


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a PID namespace of its own")
async def test_l05_what_a_living_worker_in_a_container_has_started_is_not_ended(tmp_path: Path) -> None:
    """By its own number, which is another's out here or nobody's."""
    inner = await asyncio.to_thread(inside_a_container)
    try:
        (stray,) = await asyncio.to_thread(life.strays, "node-1")
        assert await asyncio.to_thread(life.sweep, "node-1", tmp_path, own_too=True) == ()
        assert life.strays("node-1") == (stray,)
    finally:
        inner.communicate(timeout=20)
