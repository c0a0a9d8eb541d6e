"""Runs a program in namespaces of its own (processes, mounts, network, control groups), as root: nothing outlives it.

Usage: python chaos_keeper.py REPORT SECONDS GROUPS PROGRAM [ARGUMENT…]   (by `run`, as PID 1 of the new namespaces)

The kernel ends every process of a PID namespace with its PID 1, and mounts and network with their last process. So
no engine, bridge or mount of this machine is touched. Before that this PID 1 lists what the program left: that is
the check, and it sees every process, not only those that somebody knows of. Control groups stay, so `run` removes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import own_groups

PRIVATE = (Path("/tmp"), Path("/dev/shm"), Path("/run/hivemind-test"), Path("/run/netns"))
"""Folders that are empty inside, and the run's own: what is in them at the end was left there."""

ENGINES_GROUP = "docker"
"""Where an engine makes those of its containers. One that is killed leaves some; the containers themselves are looked
for as long as it runs."""

END_SECONDS = 120
"""A program that was told to end has so long to end what it started in order; then it is killed."""

LINGER_SECONDS = 10.0
"""What is just ending may take so long."""


def possible() -> bool:
    """Whether this process may make such namespaces."""
    return os.geteuid() == 0 and _unshare() is not None


def _unshare() -> str | None:
    return next((path for path in ("/usr/bin/unshare", "/bin/unshare") if os.access(path, os.X_OK)), None)


def run(
    report: Path,
    command: Sequence[str],
    linger_seconds: float = LINGER_SECONDS,
    told_to_end: Callable[[], None] = lambda: None,
) -> int:
    """Run a program so, and return its exit code; ``report`` lists what it left, as JSON, once it has ended.

    ``told_to_end`` is called when a signal ends the run.
    """
    unshare = _unshare()
    assert unshare is not None
    namespaces = ("pid", "mount", "net", "ipc", *(["cgroup"] if (groups := own_groups.make()) else []))
    words = [unshare, *(f"--{name}" for name in namespaces), "--fork", "--kill-child", "--mount-proc"]
    setpriv = "/usr/bin/setpriv"
    dying = [setpriv, "--pdeathsig=KILL"] if os.access(setpriv, os.X_OK) else []
    inside = [sys.executable, __file__, str(report), str(linger_seconds), " ".join(map(str, groups)), *command]
    try:
        process = subprocess.Popen(
            own_groups.joined(groups, [*dying, *words, "--propagation=private", *inside]), stdin=subprocess.DEVNULL
        )
        with _passing_on(process, told_to_end):
            return process.wait()
    finally:
        for group in own_groups.remove(groups):
            print(f"!! control group {group} cannot be removed", file=sys.stderr)  # noqa: T201


@contextlib.contextmanager
def _passing_on(process: subprocess.Popen[bytes], told_to_end: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT to us end it, so that it cleans up and this call returns."""

    def end(_number: int, _frame: object) -> None:
        told_to_end()
        # unshare itself takes no notice; its child is the PID 1 that does.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process.poll() is None:
            process.kill()
            process.wait()


def keep(report: Path, linger_seconds: float, groups: Sequence[Path], command: Sequence[str]) -> int:
    """Be PID 1: start the program, bury every dead process, then list and end what is left."""
    roots = [_bound(group) for group in groups]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False, capture_output=True)
    for place in PRIVATE:
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "hivemind-chaos", str(place)], check=True)
    mounts = set(_mounts())
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def end(_number: int, _frame: object) -> None:
        program.terminate()
        signal.alarm(END_SECONDS)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)  # a terminal sends it to every process there
    signal.signal(signal.SIGALRM, lambda *_: program.kill())
    code = _bury_until(program.pid)
    deadline = time.monotonic() + linger_seconds
    left = _left(mounts, roots)
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = _left(mounts, roots)
    report.write_text(json.dumps(left), encoding="utf-8")
    _thaw(roots)
    return code


def _thaw(roots: Sequence[Path]) -> None:
    """Let what was left frozen die with this PID 1: the kernel would wait for it for ever."""
    for root in roots:
        for state in root.rglob("freezer.state"):
            with contextlib.suppress(OSError):
                state.write_text("THAWED")


def _bury_until(pid: int) -> int:
    while True:
        dead, status = os.wait()
        if dead == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _bound(group: Path) -> Path:
    """Lay a group over its hierarchy, so that it is the root in here as the namespace says; returns the root."""
    mount = own_groups.mount_of(group)
    subprocess.run(["mount", "--bind", str(group), str(mount)], check=True)
    return mount


def _left(mounts: set[str], roots: Sequence[Path]) -> list[str]:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    found = [f"process {pid}: {words}" for pid, words in processes() if pid != os.getpid()]
    found += [f"mount {place}" for place in _mounts() if place not in mounts]
    groups = (group for group in sorted(own_groups.below(roots)) if group.partition("/")[0] != ENGINES_GROUP)
    found += [f"control group {group}" for group in groups]
    return found + [f"file {path}" for place in PRIVATE for path in place.iterdir()]


def processes() -> list[tuple[int, str]]:
    """Every living process that is visible here, with its command line."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (path / "stat").read_text(encoding="ascii", errors="replace")
                words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if stat.rpartition(")")[2].split()[0] not in "ZX":
                    found.append((int(path.name), words[:500] or stat.split()[1]))
    return found


def _mounts() -> list[str]:
    return [line.split()[1] for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    made = [Path(group) for group in sys.argv[3].split()]
    sys.exit(keep(Path(sys.argv[1]), float(sys.argv[2]), made, sys.argv[4:]))
