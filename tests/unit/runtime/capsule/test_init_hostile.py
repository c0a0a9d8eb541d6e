"""The program as PID 1 of a sandbox, against tasks that mean harm."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import capsules
import pytest

from hivemind_worker.runtime.capsule import messages as m

Start = Callable[..., capsules.Capsule]
pytestmark = pytest.mark.sandbox


def test_it_is_pid_1_and_survives_every_signal_from_inside(start_pid1: Start, tmp_path: Path) -> None:
    capsule = start_pid1(tmp_path)
    capsule.begin(capsules.shell("for s in 9 15 2 19 11 1 10 17 34; do kill -$s 1; done; kill -9 -1; echo alive"))
    heard = capsule.finish()
    assert heard.one(m.Ready).pid1
    # kill -9 -1 spares the caller and PID 1.
    assert heard.output() == b"alive\n"
    assert heard.one(m.Exited).why is m.Why.OWN


def test_the_task_cannot_reach_the_conversation_or_its_secret(start_pid1: Start, tmp_path: Path) -> None:
    capsule = start_pid1(tmp_path)
    script = "for f in 0 1 2; do cat /proc/1/fd/$f; echo x > /proc/1/fd/$f; done; "
    script += "cat /proc/1/environ; cat /proc/1/mem; head -c 1 /proc/1/maps; ls /proc/self/fd"
    capsule.begin(capsules.shell(script, resume_key=b"very-secret"))
    heard = capsule.finish()
    assert heard.output().split() == [b"0", b"1", b"2", b"3"]  # 3: the listing itself
    assert heard.output(m.Stream.ERR).count(b"ermission denied") == 9
    assert b"very-secret" not in heard.output() + heard.output(m.Stream.ERR)


def test_no_new_privileges(start_pid1: Start, tmp_path: Path) -> None:
    capsule = start_pid1(tmp_path)
    capsule.begin(capsules.shell("grep -E 'NoNewPrivs|CapEff|SigBlk|SigIgn' /proc/self/status"))
    lines = dict(line.split(b":\t") for line in capsule.finish().output().splitlines())
    assert lines == {b"NoNewPrivs": b"1", b"CapEff": b"0" * 16, b"SigBlk": b"0" * 16, b"SigIgn": b"0" * 16}


@pytest.mark.serial
def test_a_fork_bomb_is_gone_two_seconds_after_the_kill(start_pid1: Start, tmp_path: Path) -> None:
    # Bounded by itself: RLIMIT_NPROC does not bind root's children, and a cgroup is the executor's affair.
    bomb = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
left = 150
while True:
    if left:
        left //= 2
        try:
            if os.fork() and os.fork(): time.sleep(0.01)
            os.setsid()
        except OSError: pass
    else:
        if os.fork() == 0: os._exit(0)
        time.sleep(0.005)
        try: os.waitpid(-1, os.WNOHANG)
        except OSError: pass
"""
    capsule = start_pid1(tmp_path)
    limits = m.Limits(timeout_ms=700, grace_ms=100)
    capsule.begin(m.Spec(argv=(b"python3", b"-c", bomb.encode()), env=capsules.ENVIRONMENT, limits=limits))
    before = time.monotonic()
    exited = capsule.finish(seconds=20).one(m.Exited)
    assert time.monotonic() - before < 10
    assert (exited.why, exited.signal) == (m.Why.TIMEOUT, signal.SIGKILL)
    assert exited.leftovers > 50


def test_daemons_are_reaped_while_it_runs_and_ended_after(start_pid1: Start, tmp_path: Path) -> None:
    capsule = start_pid1(tmp_path)
    script = "for i in $(seq 50); do (setsid sh -c 'sh -c : &' &); done; (setsid sleep 100 &); sleep 0.2; "
    script += "grep -l '^State:.Z' /proc/[0-9]*/status; echo none"
    capsule.begin(capsules.shell(script))
    heard = capsule.finish()
    assert heard.output() == b"none\n"
    assert heard.one(m.Exited).leftovers >= 1


def test_output_held_open_by_a_grandchild_hangs_nothing(start_pid1: Start, tmp_path: Path) -> None:
    capsule = start_pid1(tmp_path)
    # An ignored signal stays ignored in what is started from there.
    script = "trap '' TERM; (setsid sh -c 'while :; do echo more; sleep 0.05; done' &); exit 4"
    capsule.begin(capsules.shell(script, limits=m.Limits(grace_ms=100)))
    assert capsule.finish(seconds=3).one(m.Exited).status == 4


def test_without_proc_and_with_a_read_only_root(shipped: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    command = [*capsules.sandboxed(shipped, tmp_path)]
    at = command.index("--proc")
    del command[at : at + 2]
    at = command.index("--")
    command[at:at] = ["--remount-ro", "/"]
    with capsules.Capsule(command, Path("/workspace")) as capsule:
        capsule.begin(capsules.shell("echo up > results/r; : > /x"))
        heard = capsule.finish()
    assert heard.results == {b"r": b"up\n"}
    assert b"Read-only" in heard.output(m.Stream.ERR)


def test_a_full_workspace_is_told_as_such(shipped: Path, tmp_path: Path) -> None:
    command = [*capsules.sandboxed(shipped, tmp_path)]
    at = command.index("--bind")
    command[at : at + 3] = ["--size", "1000000", "--tmpfs", "/workspace"]
    with capsules.Capsule(command, Path("/workspace")) as capsule:
        capsule.begin(capsules.shell("echo must not run"), [m.File(b"big", bytes(1_040_000), begin=True, end=False)])
        heard = capsule.finish()
    error = heard.one(m.Error)
    assert error.code is m.ErrorCode.FILE
    assert "No space left" in error.text


@pytest.mark.parametrize("what", ["NOFILE", "AS", "CPU", "FSIZE", "STACK"])
def test_the_task_cannot_starve_it_by_limits(start_pid1: Start, tmp_path: Path, what: str) -> None:
    attack = f"import resource; resource.prlimit(1, resource.RLIMIT_{what}, (0, 0))"
    capsule = start_pid1(tmp_path)
    capsule.begin(m.Spec(argv=(b"python3", b"-c", attack.encode()), env=capsules.ENVIRONMENT))
    heard = capsule.finish()
    assert b"PermissionError" in heard.output(m.Stream.ERR)
    assert heard.one(m.Exited).status == 1


def test_the_task_may_still_limit_itself(start_pid1: Start, tmp_path: Path) -> None:
    own = "import os, resource; resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE, (9, 9)); "
    own += "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); print(resource.prlimit(0, resource.RLIMIT_NOFILE))"
    capsule = start_pid1(tmp_path)
    capsule.begin(m.Spec(argv=(b"python3", b"-c", own.encode()), env=capsules.ENVIRONMENT))
    assert capsule.finish().output() == b"(9, 9)\n"
