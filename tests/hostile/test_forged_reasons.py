"""A task that tries to make its capsule report an end that did not happen: what is reported is its own."""

from __future__ import annotations

import platform

import attempts

from hivemind_worker.tasks import outcome

QUEUE = {"x86_64": 129, "aarch64": 138}[platform.machine()]

FORGE = f"""
import ctypes, signal, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
for number in (signal.SIGTERM, signal.SIGINT):
    # as if from outside of the namespace: its sender would be process 0
    info = struct.pack("<iiiiii", number, 0, -1, 0, 0, 0).ljust(128, bytes(1))
    libc.syscall({QUEUE}, 1, number, info)
time.sleep(0.3)
sys.exit(5)
"""


async def test_a_forged_signal_to_pid_1_cancels_nothing(bench: attempts.Bench) -> None:
    ended = await bench.python(FORGE)
    assert (ended.status, ended.reason) == (outcome.Status.FAILED, outcome.Reason.NONZERO_EXIT), ended
    assert ended.exit_code in {5, 128 + 15}, "its own code, or the signal that it brought upon itself"
