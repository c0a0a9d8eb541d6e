"""Tasks that reach for the capsule's first process, its signals, processor and limits: it still ends them in time."""

from __future__ import annotations

import asyncio
import json
import time

import attempts

from hivemind_worker.concurrency import stopping
from hivemind_worker.tasks import outcome

ATTACK = r"""
import ctypes, errno, json, os, resource, signal, socket, struct, subprocess
libc = ctypes.CDLL(None, use_errno=True)
found = {}

def attempt(name, work):
    try:
        work()
        found[name] = "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]

def syscall(*args):
    if libc.syscall(*args) == -1:
        raise OSError(ctypes.get_errno(), "")

child = subprocess.Popen(["sleep", "100"])
N = {"x86_64": {"setpriority": 141, "ioprio": 251, "queue": 129, "attr": 314, "pidfd_signal": 424},
     "aarch64": {"setpriority": 140, "ioprio": 30, "queue": 138, "attr": 274, "pidfd_signal": 424}}[os.uname().machine]
attr = struct.pack("IIQiIQQQ", 48, 5, 0, 0, 0, 0, 0, 0)
forged = struct.pack("iiiii", signal.SIGTERM, 0, -1, 0, 0).ljust(128, b"\0")  # sent by pid 0, uid 0
for who, pid in (("init", 1), ("child", child.pid)):
    attempt(who + " policy", lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)))
    attempt(who + " parameters", lambda: os.sched_setparam(pid, os.sched_param(0)))
    attempt(who + " attributes", lambda: syscall(N["attr"], pid, attr, 0))
    attempt(who + " processor", lambda: os.sched_setaffinity(pid, [min(os.sched_getaffinity(0))]))
    attempt(who + " priority", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
    attempt(who + " group priority", lambda: os.setpriority(os.PRIO_PGRP, pid, 19))
    attempt(who + " disk priority", lambda: syscall(N["ioprio"], 1, pid, 3 << 13))
    attempt(who + " limit", lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (5, 5)))
attempt("user priority", lambda: os.setpriority(os.PRIO_USER, 0, 19))
attempt("user disk priority", lambda: syscall(N["ioprio"], 3, os.getuid(), 3 << 13))
attempt("init signal", lambda: os.kill(1, signal.SIGTERM))
attempt("init forged signal", lambda: syscall(N["queue"], 1, signal.SIGTERM, forged))
attempt("init pidfd", lambda: os.pidfd_open(1))
attempt("init tracing", lambda: syscall({"x86_64": 101, "aarch64": 117}[os.uname().machine], 16, 1, 0, 0))
folder = os.open("/proc/1", os.O_RDONLY | os.O_DIRECTORY)
for name, info in (("plain", None), ("forged", forged)):  # a folder of /proc is a pidfd too, and no filter sees whose
    try:
        syscall(N["pidfd_signal"], folder, signal.SIGTERM, info, 0)
    except OSError:
        pass
for name, protocol in (("route", 0), ("audit", 9), ("netfilter", 12), ("uevent", 15), ("generic", 16)):
    attempt("netlink " + name, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).close())
os.sched_setaffinity(0, os.sched_getaffinity(0))
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + 1)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.prlimit(child.pid, resource.RLIMIT_NOFILE)
child.kill()
print(json.dumps({"found": found, "init's": os.getpriority(os.PRIO_PROCESS, 1), "ours": os.getpriority(0, 0)}))
"""


async def test_no_call_reaches_the_first_process_or_another_ones_scheduling(bench: attempts.Bench) -> None:
    ended = await bench.python(ATTACK)
    assert ended.status is outcome.Status.COMPLETED, (ended.reason, ended.error, ended.logs.text)
    told = json.loads(ended.logs.text)
    assert told["found"].pop("netlink route") == "done"
    assert set(told["found"].values()) == {"EPERM"}, told["found"]
    assert told["init's"] < told["ours"], "it runs before the task where they share a processor"


async def test_spinners_do_not_outlive_their_time_by_starving_the_first_process(bench: attempts.Bench) -> None:
    script = """
import os, signal
for slow in (lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)),
             lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
             lambda: os.sched_setaffinity(1, [min(os.sched_getaffinity(0))])):
    try: slow()
    except OSError: pass
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
for _ in range(40):
    if not os.fork(): break
signal.alarm(30)  # where they do starve it, not for ever
while True: pass
"""
    stop = stopping.Stop()
    running = asyncio.create_task(
        bench.python(script, stop=stop, grace_seconds=0.2, limits={"timeout_seconds": 1.0, "cpu_quota": 50_000})
    )
    began = time.monotonic()
    try:
        async with asyncio.timeout(20):
            ended = await asyncio.shield(running)
    finally:
        stop.request(stopping.StopLevel.KILL, "the test is over")
        await running
    assert ended.reason is outcome.Reason.TIMEOUT, ended.error
    assert time.monotonic() - began < 12
