"""A small chaos run keeps every promise; `make chaos` is the large one. And a seed says all of it beforehand."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import chaos
import chaos_keeper
import chaos_pace
import chaos_plan
import chaos_run
import chaos_starvation
import left_processes
import neighbours
import own_groups
import private_engine
import pytest
import waiting

SUPPORT = Path(chaos_run.__file__).parent


def test_a_seed_says_it_all_and_another_says_something_else() -> None:
    def drawn(seed: int) -> tuple[list[chaos_plan.Planned], list[chaos_plan.Blow]]:
        return chaos_plan.tasks(seed, 20), list(itertools.islice(chaos_plan.blows(seed, ["a", "pool"], 2.0), 50))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_no_blow_falls_where_it_cannot() -> None:
    blows = list(itertools.islice(chaos_plan.blows(1, ["node", "pool", "engine"], 2.0, frozenset({"power"})), 4_000))
    assert {(blow.target, blow.kind) for blow in blows} == {
        *(("node", kind) for kind in chaos_plan.KINDS if kind != "power"),
        *(("pool", kind) for kind in ("kill", "stop", "fill", "fill_artifacts", "fill_logs", "clock")),
        *(("engine", kind) for kind in ("kill", "stop")),
    }


def test_a_machine_that_starts_nothing_for_a_heartbeats_time_stands_still() -> None:
    pace = chaos_pace.Pace()
    pace.note_start(1.0, 99.0)
    assert pace.stalls == [], "nobody has said what is slow"
    pace.slow_start_seconds = 1.0
    pace.note_start(100.0, 100.9)
    pace.note_start(101.0, 102.1)
    assert pace.stalls == [(101.0, 102.1)]


async def test_a_standstill_of_the_loop_that_carries_all_lines_is_noted() -> None:
    pace = chaos_pace.Pace()
    watching = asyncio.create_task(pace.watch_loop())
    await asyncio.sleep(0)
    time.sleep(chaos_pace.STALL_SECONDS + 0.2)  # noqa: ASYNC251  (that is what is noted)
    await asyncio.sleep(0.2)
    watching.cancel()
    assert max(end - begin for begin, end in pace.stalls) > chaos_pace.STALL_SECONDS


async def test_a_standstill_that_lasts_to_the_end_is_noted() -> None:
    pace = chaos_pace.Pace()
    watching = asyncio.create_task(pace.watch_loop())
    await asyncio.sleep(0)
    time.sleep(chaos_pace.STALL_SECONDS + 0.2)  # noqa: ASYNC251  (that is what is noted)
    watching.cancel()
    await asyncio.wait((watching,))
    assert len(pace.stalls) == 1


def test_no_plan_is_made_in_the_loop_that_carries_all_lines() -> None:
    """1,000 tasks take seconds, and a standstill excuses what is lost soon after it."""
    for path in sorted(Path(chaos.__file__).parent.glob("chaos*.py")):
        for coroutine in ast.walk(ast.parse(path.read_text())):
            if isinstance(coroutine, ast.AsyncFunctionDef):
                called = [ast.unparse(node.func) for node in ast.walk(coroutine) if isinstance(node, ast.Call)]
                assert "chaos_plan.tasks" not in called, f"{path.name}: {coroutine.name}"


def test_who_waits_for_a_core_for_half_a_lease_is_starved_and_who_is_slow_himself_is_not() -> None:
    starvation = chaos_starvation.Starvation(4.0)
    for tenth in range(300):
        now = tenth / 10
        waits = min(max(now - 10.0, 0.0), 5.0)  # from 10 s to 15 s both wait: the node more, the pool less
        starvation.look(now, {"pool": (1, 0.2 * waits), "node": (2, 0.4 * waits), "other": (3, 0.0)})
    (span,) = starvation.spans
    assert span.who == "node"
    assert 9.0 < span.begin < 10.0
    assert 15.0 < span.end < 16.0


def test_what_a_process_waited_before_it_was_killed_starves_not_its_successor() -> None:
    starvation = chaos_starvation.Starvation(4.0)
    starvation.look(1.0, {"node": (1, 0.0)})
    starvation.look(2.0, {"node": (2, 9.0)})
    starvation.look(3.0, {"node": (2, 9.5)})
    assert starvation.spans == []
    starvation.look(4.0, {"node": (2, 11.5)})
    assert [span.who for span in starvation.spans] == ["node"]


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="a kernel that keeps such an account")
def test_a_process_that_lacks_a_core_is_seen_to_wait() -> None:
    words = [sys.executable, "-c", "while True: pass"]
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(subprocess.Popen(words)) for _ in range(2 * (os.cpu_count() or 1))]
        for process in crowd:
            stack.callback(process.kill)
        waiting.wait_for(
            lambda: sum(chaos_starvation.waited_seconds(process.pid) for process in crowd) > 1.0,
            description="they wait for each other", seconds=60,
        )  # fmt: skip
    assert chaos_starvation.waited_seconds(crowd[0].pid) == 0.0, "it is gone"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that is seen from within a run's namespaces, which have a /tmp of their own."""
    with tempfile.TemporaryDirectory(prefix="hivemind-chaos-", dir="/var/tmp") as folder:
        yield Path(folder)


def _verdict(terms: chaos.Terms) -> chaos_run.Verdict:
    # Not in pytest's own folder, which it closes to all but root: workspaces of sandboxes are entered by another user.
    with tempfile.TemporaryDirectory(prefix="hivemind-chaos-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)  # noqa: PTH101  (a Path would block, it says)
        return chaos_run.run(terms, Path(folder))


@pytest.mark.sandbox
@pytest.mark.timeout(300)
def test_eight_tasks_in_chaos() -> None:
    verdict = _verdict(chaos.Terms(7, 8, sandboxes=2, containers=0))
    assert verdict.good, verdict.text
    assert len(verdict.history.current_tasks) >= 8, verdict.text


@pytest.mark.long
@pytest.mark.sandbox
@pytest.mark.timeout(1_800)
def test_ninety_tasks_in_chaos() -> None:
    containers = int(private_engine.possible())
    verdict = _verdict(chaos.Terms(7, 90, 3 - containers, containers))
    assert verdict.good, verdict.text
    assert verdict.result is not None
    assert any(name.startswith("kill") for name in verdict.result.counts), verdict.text


@pytest.mark.long
@pytest.mark.sandbox
@pytest.mark.timeout(1_800)
def test_chaos_beside_sixty_spinning_processes() -> None:
    verdict = _verdict(chaos.Terms(8, 60, sandboxes=3, containers=0, spinners=60))
    assert verdict.good, verdict.text
    assert "60 spinners had" in verdict.text


@pytest.mark.skipif(not own_groups.possible(), reason="control groups of v1, made by root")
def test_spinners_get_two_thirds_of_the_processor_and_nothing_stays_of_them() -> None:
    groups = Path("/proc/self/cgroup").read_text(encoding="ascii")
    cores = os.cpu_count() or 1
    with neighbours.spinning(8 * cores) as spinners, contextlib.ExitStack() as stack:
        words = [sys.executable, "-c", "while True: pass"]
        run = [stack.enter_context(subprocess.Popen(words)) for _ in range(2 * cores)]
        for process in run:
            stack.callback(process.kill)

        def seconds(processes: list[subprocess.Popen[bytes]]) -> float:
            return sum(neighbours.cpu_seconds(process.pid) for process in processes)

        before = seconds(spinners.processes), seconds(run)
        waiting.wait_for(lambda: seconds(run) > before[1] + 1.0, description="the run has computed", seconds=120)
        had = seconds(spinners.processes) - before[0], seconds(run) - before[1]
        assert spinners.group is not None
        assert len(_groups(spinners.group.parent, os.getpid())) == 2
    assert 0.6 < had[0] / sum(had) < 0.75
    assert f"that {8 * cores} spinners had, in a control group next to" in spinners.text
    assert {process.returncode for process in spinners.processes} == {-signal.SIGKILL}
    assert _groups(spinners.group.parent, os.getpid()) == []
    assert Path("/proc/self/cgroup").read_text(encoding="ascii") == groups


def _groups(parent: Path, pid: int) -> list[Path]:
    return list(parent.glob(f"{own_groups.PREFIX}{pid}-*"))


def test_spinners_end_with_a_run_that_is_killed(place: Path) -> None:
    program = (
        "import sys, pathlib, time; sys.path.insert(0, sys.argv[1]); import neighbours\n"
        "with neighbours.spinning(2) as spinners:\n"
        " pathlib.Path(sys.argv[2]).write_text(' '.join(str(each.pid) for each in spinners.processes) + '.')\n"
        " time.sleep(600)"
    )
    numbers = place / "numbers"
    with subprocess.Popen([sys.executable, "-c", program, str(SUPPORT), str(numbers)]) as process:
        waiting.wait_for(
            lambda: numbers.exists() and numbers.read_text().endswith("."), description="they spin", seconds=60
        )
        process.kill()
    pids = [int(word) for word in numbers.read_text().rstrip(".").split()]

    def alive() -> list[int]:
        return [pid for pid, words in chaos_keeper.processes() if pid in pids and "getppid" in words]

    waiting.wait_for(lambda: not alive(), description="they have ended", seconds=60)
    with neighbours.spinning(1) as spinners:  # the next run removes the groups that a killed one left
        assert spinners.group is None or _groups(spinners.group.parent, process.pid) == []


@pytest.mark.long
@pytest.mark.sandbox
@pytest.mark.timeout(300)
def test_a_run_whose_harness_gives_up_says_so_and_leaves_nothing() -> None:
    verdict = _verdict(chaos.Terms(9, 8, sandboxes=2, containers=0, seconds=0.0))
    assert not verdict.good
    assert "!! submitting has not ended after 0 quiet seconds" in verdict.text
    assert not [name for name in verdict.history.leftovers if name.startswith(("process", "mount", "control group"))]


@pytest.mark.long
@pytest.mark.sandbox
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_a_run_that_is_told_to_end_says_so_names_its_folder_and_leaves_nothing(number: int) -> None:
    words = [sys.executable, str(chaos_run.HOME / "scripts" / "run_chaos.py"), "10", "200", "--before="]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        folders = Path("/var/tmp")
        made = list(folders.glob("hivemind-chaos-10-*"))

        def begun() -> bool:
            new = [path for path in folders.glob("hivemind-chaos-10-*") if path not in made]
            return any('"execution"' in path.read_text() or '"seen"' in path.read_text() for path in _histories(new))

        waiting.wait_for(begun, description="tasks run", seconds=120)
        process.send_signal(number)
        output, _ = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "Traceback" not in output, output
    assert "!! the run was told to end" in output
    (folder,) = re.findall(r"== see (\S+)", output)
    assert left_processes.of_folder(Path(folder)) == {}
    assert "left behind" not in output, output
    shutil.rmtree(folder)


def _histories(folders: list[Path]) -> list[Path]:
    return [folder / chaos.HISTORY for folder in folders if (folder / chaos.HISTORY).exists()]


@pytest.mark.skipif(not chaos_keeper.possible(), reason="namespaces are root's to make")
@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL])
def test_nothing_of_a_run_outlives_it_whatever_ends_it(place: Path, number: int) -> None:
    mark = f"{place}/nobody-ends-this"
    orphan = f"setsid sh -c 'trap : TERM; while :; do sleep 1; done' {mark} & touch {place}/begun; sleep 600"
    program = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import chaos_keeper;"
        " chaos_keeper.run(pathlib.Path(sys.argv[2]), ['sh', '-c', sys.argv[3]])"
    )
    words = [sys.executable, "-c", program, str(Path(chaos_keeper.__file__).parent), str(place / "left"), orphan]
    process = subprocess.Popen(words)
    waiting.wait_for((place / "begun").exists, description="the program runs", seconds=30)
    assert any(mark in words for _, words in chaos_keeper.processes())
    process.send_signal(number)
    process.wait()

    def alive() -> list[str]:
        return [words for _, words in chaos_keeper.processes() if f"sleep 1; done {mark}" in words]

    waiting.wait_for(lambda: not alive(), description="all of it is gone", seconds=30)
    own_groups.remove(own_groups.make())  # the next run removes the groups that a killed one left
    assert not own_groups.find(f"{own_groups.PREFIX}{process.pid}-*")


@pytest.mark.skipif(not chaos_keeper.possible(), reason="namespaces are root's to make")
def test_what_a_run_leaves_is_listed_every_process_mount_and_file(place: Path) -> None:
    report = place / "left.json"
    program = "setsid sleep 300 & touch /tmp/forgotten; mkdir /tmp/place; mount -t tmpfs x /tmp/place"
    assert chaos_keeper.run(report, ["sh", "-c", program], linger_seconds=0.5) == 0
    left = report.read_text(encoding="utf-8")
    assert "sleep 300" in left
    assert "mount /tmp/place" in left
    assert "file /tmp/forgotten" in left
    assert not Path("/tmp/forgotten").exists()


@pytest.mark.skipif(not own_groups.possible(), reason="control groups of v1, made by root")
def test_control_groups_that_a_run_left_are_listed_and_removed(place: Path) -> None:
    report = place / "left.json"
    program = (
        "mkdir -p /sys/fs/cgroup/pids/left/below; sleep 300 & echo $! > /sys/fs/cgroup/pids/left/below/cgroup.procs"
    )
    assert chaos_keeper.run(report, ["sh", "-c", program], linger_seconds=0.5) == 0
    assert {"control group left", "control group left/below"} <= set(json.loads(report.read_text(encoding="utf-8")))
    assert not own_groups.find(f"{own_groups.PREFIX}{os.getpid()}-*")


@pytest.mark.skipif(not own_groups.possible(), reason="control groups of v1, made by root")
def test_a_run_that_leaves_something_frozen_ends_and_says_so(place: Path) -> None:
    report, group = place / "left.json", "/sys/fs/cgroup/freezer/left"
    program = f"mkdir {group}; sleep 300 & echo $! > {group}/cgroup.procs; echo FROZEN > {group}/freezer.state"
    assert chaos_keeper.run(report, ["sh", "-c", program], linger_seconds=0.5) == 0
    assert "sleep 300" in report.read_text(encoding="utf-8")
    assert not own_groups.find(f"{own_groups.PREFIX}{os.getpid()}-*")
