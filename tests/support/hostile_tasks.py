"""Tasks that mean harm, one for each case of the promises that a task can try by itself: what it does, how it must end.

Each is a task as a stranger submits it, through the pool, to a worker that runs others' tasks beside it.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hivemind_worker.client import shapes
from hivemind_worker.tasks import outcome

MIB = 1024 * 1024
SMALL = {"memory_limit": "64m", "disk_limit": "32m", "cpu_quota": 50_000, "pids_limit": 32, "max_attempts": 1}

Check = Callable[[shapes.Task, str], bool]


@dataclass(frozen=True)
class Case:
    """An attack. ``holds``: whether the task that has ended, with what it wrote, shows that it was contained."""

    id: str
    does: str
    task: Mapping[str, Any]
    holds: Check
    reasons: frozenset[outcome.Reason | None] = field(default_factory=lambda: frozenset({None}))


def completed(task: shapes.Task, _: str) -> bool:
    return task.exit_code == 0


def prints(*lines: str) -> Check:
    return lambda task, text: task.exit_code == 0 and text.splitlines() == list(lines)


def results_are(*names: str) -> Check:
    return lambda task, _: task.result is not None and {file.name for file in task.result.results} == set(names)


def _shell(id_: str, does: str, script: str, holds: Check, *reasons: outcome.Reason | None, **fields: object) -> Case:
    task = {"command": ["/bin/sh", "-c", script], **SMALL, **fields}
    return Case(id_, does, task, holds, frozenset(reasons or {None}))


def _python(id_: str, does: str, code: str, holds: Check, *reasons: outcome.Reason | None, **fields: object) -> Case:
    return Case(id_, does, {"code": code, **SMALL, **fields}, holds, frozenset(reasons or {None}))


C01 = """
import os
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(*(int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")))
print(status["NoNewPrivs"].strip(), status["Seccomp"].strip(), os.getuid() != 0)
"""
C05 = """
import os
print([path for path in ("/var/run/docker.sock", "/run/docker.sock", "/root/.ssh", "/etc/shadow", SENTINEL)
       if os.access(path, os.R_OK)])
own = {"HIVEMIND_TASK_ID", "HIVEMIND_ATTEMPT", "HIVEMIND_RESULTS"}
print([name for name in os.environ.keys() - own if name.startswith(("HIVEMIND", "DOCKER", "AWS", "HTTP"))])
"""
D01 = """
import os
for folder in (".", "/tmp", "/dev/shm", "/run", "/var/tmp", "/"):
    try:
        with open(os.path.join(folder, "fill"), "wb", 0) as file:
            while True:
                file.write(bytes(1 << 20))
    except OSError:
        pass
print("full")
"""
D02 = """
import itertools, os
for folder in (".", "/tmp", "/dev/shm", "/run"):
    try:
        for number in itertools.count():
            os.close(os.open(f"{folder}/{number}", os.O_CREAT))
            if number > 400_000:
                print("no cap in", folder)
                break
    except OSError:
        pass
print("capped")
"""
R06 = """
import os, socket, threading
kept, threads = [], []
def fails(work):
    try:
        while True:
            work()
    except (OSError, RuntimeError) as error:
        return type(error).__name__
print(fails(lambda: kept.append(open("/dev/null"))))
kept.clear()
print(fails(lambda: kept.append(socket.socketpair())))
kept.clear()
print(fails(lambda: os._exit(0) if os.fork() == 0 else None))
"""
H02 = """
import os, socket
os.chdir("results")
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
for name, mode in (("setuid", 0o6755), ("none", 0), ("plain", 0o644)):
    open(name, "w").write(name)
    os.chmod(name, mode)
"""
S02 = """
import os
seen = []
for folder in (".", "/tmp", "/dev/shm", "/run", "/var/tmp", "/workspace"):
    for path, _, names in os.walk(folder):
        seen += [os.path.join(path, name) for name in names if "left-by-" in name]
print(seen)
open("/tmp/left-by-another", "w").write("x")
open("left-by-another", "w").write("x")
open("/dev/shm/left-by-another", "w").write("x")
"""
NETWORK = """
import socket
reached = []
for family, address in ((socket.AF_INET, ("127.0.0.1", PORT)), (socket.AF_INET, ("172.17.0.1", PORT)),
                        (socket.AF_INET, ("169.254.169.254", 80)), (socket.AF_INET, (HOST, PORT)),
                        (socket.AF_INET6, ("::1", PORT)), (socket.AF_INET, ("1.1.1.1", 53))):
    try:
        with socket.socket(family) as line:
            line.settimeout(1)
            line.connect(address)
            reached.append(address)
    except OSError:
        pass
try:
    reached.append(socket.gethostbyname("example.org"))
except OSError:
    pass
print(reached)
"""


def _oom(task: shapes.Task, _: str) -> bool:
    result = task.result
    return result is not None and (result.usage.peak_memory_bytes or 0) > 32 * MIB


def _exits(code: int) -> Check:
    return lambda task, _: task.exit_code == code


def bomb() -> bytes:
    """A tar archive of 200 MB of zeros, gzipped to 0.2 MB."""
    entry = tarfile.TarInfo("zeros")
    entry.size = 200 * MIB
    # Each is a member of its own: to pack all in one takes a second, of every process that collects the tests.
    parts = (entry.tobuf(), *[bytes(MIB)] * 200, bytes(2 * tarfile.BLOCKSIZE))
    packed = {part: gzip.compress(part) for part in set(parts)}
    return b"".join(packed[part] for part in parts)


def cases(sentinel: str, host: str, port: int) -> list[Case]:
    """All attacks, told where the host's own file and a port of the host are."""
    timeout, oom, nonzero = outcome.Reason.TIMEOUT, outcome.Reason.OOM, outcome.Reason.NONZERO_EXIT
    network = NETWORK.replace("PORT", str(port)).replace("HOST", repr(host))
    return [
        _python("C01", "looks at its rights", C01, prints("0 0 0 0 0", "1 2 True")),
        _python("C05", "looks for engine and host", C05.replace("SENTINEL", repr(sentinel)), prints("[]", "[]")),
        _shell("R01", "forks without end", ":(){ :|:& };:; sleep 60", lambda *_: True, timeout, nonzero, timeout=1),
        _python("R02", "takes ten times its memory", "x = bytearray(640 << 20)\nprint(len(x))", _oom, oom),
        *(_shell(f"R04-{code}", f"exits {code}", f"exit {code}", _exits(code), nonzero) for code in (125, 127, 137)),
        _shell("R04-kill", "kills itself", "kill -9 $$", lambda task, _: task.exit_code != 0, nonzero),
        _shell("R05", "spins on more cores than it has", "for i in 1 2 3 4; do while :; do :; done & done; wait",
               lambda *_: True, timeout, timeout=1.5),
        _python("R06", "takes files, sockets and processes", R06, prints("OSError", "OSError", "BlockingIOError")),
        _python("D01", "writes until all is full", D01, lambda task, text: "full" in text or task.exit_code != 0,
                None, oom, outcome.Reason.DISK_LIMIT),
        _python("D02", "makes files without end", D02, lambda _, text: "no cap" not in text,
                None, oom, timeout, timeout=20),
        _shell("D03", "writes 200 MB of output", "head -c 209715200 /dev/zero | tr '\\\\0' x",
               lambda task, text: task.result is not None and outcome.Flag.OUTPUT_TRUNCATED in task.result.flags
               and len(text) < 8 * MIB),
        _shell("H01", "links to the host's files", f"cd results; ln -s {sentinel} a; ln -s / b; ln -s c c; echo x > d",
               results_are("d")),
        _python("H02", "hands back what is no file", H02, results_are("setuid", "plain")),
        _shell("H05", "makes a file of a terabyte", "truncate -s 1T results/a; echo x > results/b",
               lambda task, _: task.result is not None
               and sum(file.artifact.size for file in task.result.results) <= 32 * MIB,
               None, outcome.Reason.RESULTS_REJECTED),
        _shell("H08", "links files to each other", "cd results; echo x > a; ln a b; mkdir c; ln a c/d",
               results_are("a", "b", "c/d")),
        _shell("H11", "unpacks a bomb", "tar xzf bomb.tgz 2>/dev/null || echo no room",
               lambda task, text: text == "no room\n" or task.exit_code != 0, None, oom, outcome.Reason.DISK_LIMIT,
               input_files={"bomb.tgz": bomb()}),
        _shell("X01", "ignores SIGTERM", "trap '' TERM; while :; do sleep 0.2; done",
               lambda *_: True, timeout, timeout=1),
        _python("S01", "looks for the node's secrets", C05.replace("SENTINEL", repr(sentinel)), prints("[]", "[]")),
        _python("S02-a", "looks for what another left, and leaves something", S02, prints("[]")),
        _python("S02-b", "looks for what another left, and leaves something", S02, prints("[]")),
        _python("G7", "connects to whatever it can name", network, prints("[]")),
    ]  # fmt: skip


REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "C04-privileged": ({"privileged": True}, "privileged"),
    "C04-cap_add": ({"cap_add": ["ALL"]}, "cap_add"),
    "C04-volumes": ({"volumes": ["/:/host"]}, "volumes"),
    "C04-network": ({"network": "host"}, "network"),
    "C04-security_opt": ({"security_opt": ["seccomp=unconfined"]}, "security_opt"),
    "C04-image": ({"docker_image": "busybox --privileged"}, "docker_image"),
    "I01-up": ({"input_files": {"../../etc/cron.d/x": "x"}}, "input_files"),
    "I01-absolute": ({"input_files": {"/etc/x": "x"}}, "input_files"),
    "I01-nul": ({"input_files": {"a\0b": "x"}}, "input_files"),
    "I01-long": ({"input_files": {"a" * 5000: "x"}}, "input_files"),
    "I02": ({"input_files": {"a": "x", "a/b": "y"}}, "input_files"),
    "I03": ({"id": "../x"}, "id"),
    "I04": ({"command": ["true", "a\0b"]}, "command"),
    "I06-index": ({"command": None, "code": "1", "requirements": ["--index-url=http://x"]}, "requirements"),
    "I06-shell": ({"command": None, "code": "1", "requirements": ["six\nRUN id"]}, "requirements"),
    "P08": ({"labels": {f"l{number}": "x" * 60 for number in range(10_000)}}, "labels"),
}
"""Fields that are refused before anything runs, and which field the answer names."""


def refused_task(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A task with these fields; what is None is left out."""
    return {name: value for name, value in {"command": ["true"], **fields}.items() if value is not None}


def as_text(task: Mapping[str, Any]) -> str:
    """For a message."""
    return json.dumps(task, default=repr)[:300]
