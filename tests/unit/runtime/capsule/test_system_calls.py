"""The filter of system calls, run here as the kernel runs it: which calls it allows with which arguments."""

from __future__ import annotations

import errno
import json
import struct

import pytest

from hivemind_worker.runtime.capsule import system_calls
from hivemind_worker.runtime.docker import hardening

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
GARBAGE = 0xABCD << 32
"""In the upper half of a register, which the kernel does not read of an int."""


def judge(machine: str, number: int, *args: int, architecture: int | None = None) -> int:
    """What the program returns for one call: classic BPF over `struct seccomp_data`."""
    data = struct.pack("<iIQ6Q", number, architecture or MACHINES[machine], 0, *args, *([0] * (6 - len(args))))
    program = list(struct.iter_unpack("<HBBI", system_calls.filter_program(machine)))
    at = accumulator = 0
    while True:
        code, then, otherwise, value = program[at]
        at += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, value)[0]
            case 0x54:
                accumulator &= value
            case 0x06:
                return int(value)
            case _:
                holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}[code]
                at += then if holds else otherwise


def number(machine: str, name: str) -> int:
    """Of a call that the table allows on conditions."""
    column = list(MACHINES).index(machine)
    return next(call.numbers[column] for call in system_calls.CONDITIONAL if call.name == name)


REACHING_OTHERS = [
    *((name, (pid,)) for name in ("sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler")
      for pid in (1, 7, 1 << 31, 0xFFFFFFFF)),
    *(("setpriority", args) for args in ((0, 1), (1, 1), (2, 0), (2, 65534), (0, 0xFFFFFFFF))),
    *(("ioprio_set", args) for args in ((1, 1), (2, 1), (3, 0), (3, 65534), (0, 0))),
    *(("prlimit64", args) for args in ((1, 7, 0x7FFF0000), (1, 7, 1 << 32), (5, 0, 1))),
    *(("socket", (16, 3, protocol)) for protocol in (1, 4, 9, 12, 15, 16)),
    ("socketpair", (16, 3, 0)), ("socket", (40, 1, 0)), ("clone", (0x10000000,)),
]  # fmt: skip
ON_ITSELF = [
    *((name, (0,)) for name in ("sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler")),
    ("sched_setaffinity", (GARBAGE,)),
    *(("setpriority", args) for args in ((0, 0), (1, 0))),
    *(("ioprio_set", args) for args in ((1, 0), (2, 0))),
    *(("prlimit64", args) for args in ((0, 7, 0x7FFF0000), (1, 7, 0), (9, 3, 0))),
    ("socket", (16, 3, 0)), ("socket", (2, 1, 6)), ("socketpair", (1, 1, 0)), ("clone", (0x11,)),
]  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES)
def test_no_call_reaches_the_scheduling_or_the_limits_of_another_process(machine: str) -> None:
    for name, args in REACHING_OTHERS:
        assert judge(machine, number(machine, name), *args) == EPERM, (name, args)
        assert judge(machine, number(machine, name), args[0] | GARBAGE, *args[1:]) == EPERM, (name, args)
    for name in ("migrate_pages", "move_pages", "process_madvise", "process_vm_writev", "kcmp", "pidfd_getfd",
                 "process_mrelease", "mbind", "set_mempolicy"):  # fmt: skip
        assert name not in system_calls.allowed(machine)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_process_still_schedules_and_limits_itself(machine: str) -> None:
    for name, args in ON_ITSELF:
        assert judge(machine, number(machine, name), *args) == ALLOW, (name, args)
    assert judge(machine, system_calls.allowed(machine)["read"]) == ALLOW
    assert judge(machine, 435) == judge(machine, system_calls.NEWEST + 1) == ENOSYS
    assert judge(machine, 0, architecture=0x40000003) == 0x80000000


@pytest.mark.parametrize("machine", MACHINES)
def test_the_engines_profile_has_the_same_conditions(machine: str) -> None:
    rules = json.loads(hardening.profile(machine))["syscalls"]
    column = list(MACHINES).index(machine)
    for name, args, expected in [(*one, False) for one in REACHING_OTHERS] + [(*one, True) for one in ON_ITSELF]:
        choices = [rule["args"] for rule in rules if name in rule["names"]]
        assert all(arg["op"] == "SCMP_CMP_MASKED_EQ" for choice in choices for arg in choice)
        padded = [*args, 0, 0, 0, 0]
        allowed = any(all(padded[a["index"]] & a["value"] == a["valueTwo"] for a in choice) for choice in choices)
        assert allowed is expected, (name, args)
    assert {call.numbers[column] for call in system_calls.CONDITIONAL}.isdisjoint(
        system_calls.allowed(machine).values()
    )
