"""A worker that is killed while it kills a capsule leaves nothing frozen: that would die of no signal, for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import waiting

from hivemind_worker.runtime import cgroup_kill
from hivemind_worker.runtime.capsule import freezer
from hivemind_worker.runtime.sandbox import limits

pytestmark = pytest.mark.sandbox
MOMENTS = 60
KILLER = """
import sys
from pathlib import Path
from hivemind_worker.runtime import cgroup_kill
folders = {controller: Path(folder) for controller, _, folder in (each.partition("=") for each in sys.argv[1:])}
print(flush=True)
cgroup_kill.kill(folders)
"""
FREEZERS = {"freezer": ("freezer.state", "FROZEN"), "": ("cgroup.freeze", "1")}


def _parents() -> limits.Parents:
    parents = limits.probe()
    if not parents.folders.keys() & FREEZERS.keys():
        pytest.skip("NO RIGHT TO MAKE CONTROL GROUPS THAT FREEZE")
    return parents


def _freezer(folders: Mapping[str, Path]) -> tuple[Path, str]:
    controller = "freezer" if "freezer" in folders else ""
    file, frozen = FREEZERS[controller]
    return folders[controller] / file, frozen


def _named(pid: int) -> dict[str, Path]:
    """Groups as the sandbox of a worker of this number has them."""
    name = f"hivemind-task-{pid}-{Path('/proc/self/ns/pid').stat().st_ino}-{uuid.uuid4().hex}"
    made = {controller: folder / name for controller, folder in _parents().folders.items()}
    for folder in made.values():
        folder.mkdir()
    return made


def _removed(folders: Mapping[str, Path]) -> None:
    for folder in folders.values():
        if folder.exists():
            folder.rmdir()


@pytest.fixture
def living() -> Iterator[dict[str, Path]]:
    """Groups of a worker that lives."""
    made = _named(os.getpid())
    yield made
    _removed(made)


@pytest.fixture
def dead() -> Iterator[dict[str, Path]]:
    """Groups of a worker that has ended."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    made = _named(ended.pid)
    yield made
    _removed(made)


def _sleeper(folders: Mapping[str, Path]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(["sleep", "600"])
    for folder in folders.values():
        (folder / "cgroup.procs").write_text(str(process.pid))
    return process


@pytest.mark.long
def test_a_killer_killed_at_any_moment_leaves_nothing_frozen(living: dict[str, Path]) -> None:
    words = [f"{controller}={folder}" for controller, folder in living.items()]
    state, frozen = _freezer(living)
    for number in range(MOMENTS):
        capsule = _sleeper(living)
        try:
            with subprocess.Popen([sys.executable, "-c", KILLER, *words], stdout=subprocess.PIPE) as killer:
                assert killer.stdout is not None
                killer.stdout.readline()
                time.sleep(number * 0.0002)
                killer.kill()
            assert state.read_text().strip() != frozen, f"{number * 0.2:.1f} ms after it had begun"
        finally:
            state.write_text("THAWED" if state.name == "freezer.state" else "0")
            capsule.kill()
            capsule.wait()


def test_what_dies_slowly_is_not_frozen(living: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine it takes seconds, in which a killer that froze it might be killed."""
    monkeypatch.setattr(cgroup_kill, "DIE_SECONDS", -1.0)
    monkeypatch.setattr(cgroup_kill, "_kill_one", lambda *_: None)
    monkeypatch.setattr(freezer, "freeze", lambda _: pytest.fail("it is frozen"))
    capsule = _sleeper(living)
    try:
        cgroup_kill.kill(living)
    finally:
        capsule.kill()
        capsule.wait()
        waiting.wait_for(lambda: not cgroup_kill.processes(living), description="the group is empty", seconds=10)


# Any worker that starts beside it sweeps, too.
@pytest.mark.serial
def test_what_a_dead_worker_left_frozen_is_thawed_by_the_next_sweep(dead: dict[str, Path]) -> None:
    state, frozen = _freezer(dead)
    capsule = _sleeper(dead)
    try:
        state.write_text(frozen)
        os.kill(capsule.pid, signal.SIGKILL)
        limits.sweep(_parents())
        assert capsule.wait(10) == -signal.SIGKILL
        waiting.wait_for(lambda: not cgroup_kill.processes(dead), description="the group is empty", seconds=10)
        limits.sweep(_parents())
        assert not any(folder.exists() for folder in dead.values())
    finally:
        if state.exists():
            state.write_text("THAWED" if state.name == "freezer.state" else "0")
        capsule.kill()
        capsule.wait()


def test_a_living_worker_s_frozen_group_is_left_to_it(living: dict[str, Path]) -> None:
    state, frozen = _freezer(living)
    capsule = _sleeper(living)
    try:
        state.write_text(frozen)
        limits.sweep(_parents())
        assert state.read_text().strip() in {frozen, "FREEZING"}
    finally:
        state.write_text("THAWED" if state.name == "freezer.state" else "0")
        capsule.kill()
        capsule.wait()
        waiting.wait_for(lambda: not cgroup_kill.processes(living), description="the group is empty", seconds=10)
