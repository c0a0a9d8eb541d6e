"""Each defence of containers is tried: behind a proxy that takes one off, or all, and hides it, the deed shows it."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import attempts
import pytest
import stripping_proxy
from stripping_proxy import Stripping

from hivemind_worker import errors
from hivemind_worker.runtime import proving
from hivemind_worker.runtime.capsule import defence_spec
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import hardening
from hivemind_worker.tasks import outcome

pytestmark = pytest.mark.docker

BY_DEED = {
    "seccomp": {"system_calls"},
    "seccomp_default": {"system_calls"},
    "root": {"root"},
    "host_mounted": {"mounts"},
    "engine_socket": {"mounts", "host_paths"},
    "workspace_bound": {"mounts"},
    "pid": {"namespaces", "processes"},
    "network": {"network"},
    "bridge": {"network"},
    "ipc": {"namespaces"},
    "uts": {"namespaces"},
    "cgroup_namespace": {"namespaces"},
    "pids": {"processes_limit"},
    "memory": {"memory"},
    "processor": {"processor"},
    "ulimits": {"file_limits"},
    "memory_folders": {"memory_folders"},
    "folder_flags": {"mounts"},
    "shm": {"memory_folders"},
    "user": {"run"},
    "privileged": {"system_calls", "devices", "masks"},
    "devices": {"devices"},
    "masks": {"masks"},
    "oom_score": {"oom_score"},
    "log": {"spec"},
}
"""What the probe's deeds show of each way to take a defence off."""

BY_WORD_ALONE = set(stripping_proxy.STRIPS) - set(BY_DEED)
"""Not to be seen from inside, because a second layer of ours holds, or because it is no matter of the inside."""


async def _broken(docker_url: str, folder: Path, stripping: Stripping) -> dict[str, str]:
    async with stripping_proxy.before(docker_url, stripping) as url, attempts.docker_bench(url, "-", folder) as bench:
        verdicts = await proving.prove(bench.executor)
    assert stripping.done
    return {each.id: each.evidence for each in proving.broken(verdicts)}


async def test_all_taken_off_at_once_is_named_one_by_one(docker_url: str, tmp_path: Path) -> None:
    broken = await _broken(docker_url, tmp_path, Stripping(stripping_proxy.ALL, forged=True))
    assert broken.keys() >= {
        *("user", "capabilities", "bounding_set", "system_calls", "root", "kernel_settings", "masks", "network"),
        *("mounts", "memory_folders", "namespaces", "processes", "first_process", "memory", "processes_limit"),
        *("file_limits", "oom_score", "processor"),
    }
    assert "log driver" in broken["spec"], "inspect said that all was as it was asked"


async def test_a_difference_ends_the_attempt_before_it_starts_and_the_node_is_unfit_until_it_has_gone(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    stripping = Stripping(("memory",))
    async with (
        stripping_proxy.before(docker_url, stripping) as url,
        attempts.docker_bench(url, busybox_image, tmp_path) as bench,
    ):
        watcher = attempts.Watcher()
        ended = await bench.shell("echo ran", watcher=watcher)
        assert (ended.status, ended.reason) == (outcome.Status.FAILED, outcome.Reason.INTERNAL)
        assert outcome.is_nodes_fault(str(ended.reason))
        assert ended.node_check is outcome.NodeCheck.FAILED, "the image is not to blame, and needs no trial"
        assert "Memory is 0" in ended.error
        assert watcher.text() == b""
        fit = await bench.executor.fitness()
        assert not fit.usable
        assert "Memory is 0" in fit.why

        seen = {each.id: each.evidence for each in proving.broken(await proving.prove(bench.executor))}
        assert "spec" in seen, "the word"
        assert "memory" in seen, "and the deed"
        assert not (await bench.executor.fitness()).usable

        stripping.strips = ()
        verdicts = await proving.prove(bench.executor)
        assert {each.id for each in verdicts if each.state is defence_spec.State.UNTRIED} <= {"processor"}
        assert proving.broken(verdicts) == ()
        assert (await bench.executor.fitness()).usable
        assert (await bench.shell("echo ran")).logs.text == b"ran\n"


@pytest.mark.long
@pytest.mark.parametrize("forged", [False, True], ids=["told", "forged"])
@pytest.mark.parametrize("name", sorted(stripping_proxy.STRIPS))
async def test_each_taken_off_alone_is_named(docker_url: str, tmp_path: Path, name: str, *, forged: bool) -> None:
    async with asyncio.timeout(10):
        broken = await _broken(docker_url, tmp_path, Stripping((name,), forged=forged))
    if name == "privileged" and "unable to apply caps" in broken.get("run", ""):
        pytest.skip("THIS MACHINE LETS ITS ENGINE START NO PRIVILEGED CONTAINER")
    if forged:
        assert broken.keys() >= BY_DEED.get(name, set()), name
    else:
        assert "spec" in broken, name


@pytest.mark.long
async def test_nothing_is_left_behind_by_twenty_trials(docker_url: str, tmp_path: Path) -> None:
    async with attempts.docker_bench(docker_url, "-", tmp_path) as bench:
        for _ in range(20):
            assert proving.broken(await proving.prove(bench.executor)) == ()


async def test_whatever_is_started_is_looked_at_before(docker_url: str, busybox_image: str) -> None:
    engine = engines.Engine(docker_url)
    await engine.connect()
    name, labels = f"hivemind-test-{uuid.uuid4().hex[:12]}", {hardening.NODE_LABEL: f"test-{uuid.uuid4().hex[:12]}"}
    body = {"Image": busybox_image, "Cmd": ["true"], "Labels": labels, "HostConfig": {"NetworkMode": "none"}}
    try:
        made = await engine.create(name, body)
        await engine.update(made, {"PidsLimit": 7})
        with pytest.raises(errors.SpecMismatch, match="PidsLimit is 7"):
            await engine.start(made)
        assert (await engine.inspect(made))["State"]["Status"] == "created"
        assert engine.inspector.differences
    finally:
        await engine.remove(name)
        await engine.close()
