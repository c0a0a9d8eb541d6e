"""What every executor must keep: caps of output and results, limits of memory, processes, disk; and what was used."""

from __future__ import annotations

import asyncio
import hashlib
import resource

import attempts
import pytest
import waiting

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime.capsule import accounts
from hivemind_worker.tasks import outcome, plan

MIB = 1024 * 1024


async def test_inputs_larger_than_the_disk_limit_are_said_to_be(bench: attempts.Bench) -> None:
    files = tuple(plan.InputFile(f"part-{at}", content=bytes(2 * MIB)) for at in range(6))
    ended = await bench.shell("true", files=files, limits={"disk_bytes": 8 * MIB})
    assert ended.reason is outcome.Reason.DISK_LIMIT, ended.error


async def test_results_larger_than_the_memory_limit_come_back(bench: attempts.Bench) -> None:
    script = "head -c 100000000 /dev/zero | tr '\\0' 'x' > results/big"
    ended = await bench.shell(script, limits={"memory_bytes": 64 * MIB, "disk_bytes": 512 * MIB})
    assert ended.status is outcome.Status.COMPLETED, ended.error
    assert ended.results[0].artifact.sha256 == hashlib.sha256(b"x" * 100_000_000).hexdigest()


async def test_output_beyond_the_cap_keeps_head_and_tail_and_counts_all(bench: attempts.Bench) -> None:
    watcher = attempts.Watcher()
    ended = await bench.python("for i in range(2_000_000): print(i)", watcher=watcher)
    total = sum(len(str(i)) + 1 for i in range(2_000_000))
    assert ended.logs.stdout_bytes == total
    assert ended.logs.text.startswith(b"0\n1\n2\n")
    assert ended.logs.text.endswith(b"1999998\n1999999\n")
    assert b"bytes of stdout are not kept" in ended.logs.text
    kept = attempts.CAPS.output_head_bytes + attempts.CAPS.output_tail_bytes
    assert kept - 10 <= len(ended.logs.text) <= kept + 200
    assert ended.flags >= {outcome.Flag.OUTPUT_TRUNCATED}
    assert all(watcher.pieces[at][1] <= watcher.pieces[at + 1][1] for at in range(len(watcher.pieces) - 1))


async def test_result_caps_give_whole_files_only(bench: attempts.Bench) -> None:
    ended = await bench.shell(
        "cd results; for i in 1 2 3 4 5 6 7 8 9; do head -c 1000 /dev/zero > $i; done; head -c 9000 /dev/zero > big",
        caps={"results_bytes": 5000, "results_count": 3},
    )
    assert ended.status is outcome.Status.COMPLETED, ended.error
    assert [file.artifact.size for file in ended.results] == [1000, 1000, 1000]
    assert ended.flags >= {outcome.Flag.RESULTS_TRUNCATED}
    assert {skipped.why for skipped in ended.skipped} >= {"over cap: count"}


async def test_usage_is_there_and_plausible(bench: attempts.Bench) -> None:
    script = "import time; x = bytearray(80 << 20); t = time.process_time()\nwhile time.process_time() - t < 0.4: pass"
    ended = await bench.python(script)
    used = ended.usage
    assert 0.4 <= used.wall_seconds < 20
    assert used.cpu_seconds is not None
    assert 0.4 <= used.cpu_seconds < 5
    assert used.peak_memory_bytes is not None
    assert 80 * MIB <= used.peak_memory_bytes <= attempts.LIMITS.memory_bytes
    assert set(ended.timings) >= {"prepare", "start", "run", "collect"}
    assert ended.limits == attempts.LIMITS
    assert ended.isolation == bench.executor.isolation


async def test_oom_is_told_by_the_record(bench: attempts.Bench) -> None:
    script = "x = bytearray(10 * 64 << 20)\nfor at in range(0, len(x), 4096): x[at] = 1"
    ended = await bench.python(script, limits={"memory_bytes": 64 * MIB, "disk_bytes": 16 * MIB})
    assert ended.reason is outcome.Reason.OOM, ended.error
    assert f"memory limit {64 * MIB} bytes, peak {ended.usage.peak_memory_bytes}" in ended.error
    assert ended.usage.peak_memory_bytes is not None
    assert 60 * MIB <= ended.usage.peak_memory_bytes <= 64 * MIB
    assert "memory" in ended.limits_hit


async def test_the_process_limit_holds_and_is_told(bench: attempts.Bench) -> None:
    script = """
import os, sys, time
made = 0
try:
    for _ in range(200):
        if os.fork() == 0:
            time.sleep(100)
        made += 1
except OSError as error:
    print(made, error.errno)
    sys.exit(1)
"""
    ended = await bench.python(script, limits={"pids": 20})
    made, errno = map(int, ended.logs.text.split())
    assert errno == 11
    assert 10 <= made < 20
    assert ended.reason is outcome.Reason.PIDS_LIMIT
    assert "pids" in ended.limits_hit


@pytest.mark.parametrize("folder", ["/workspace", "/tmp"])
async def test_a_full_disk_is_said_inside(bench: attempts.Bench, folder: str) -> None:
    script = f"""
import errno
try:
    with open("{folder}/fill", "wb") as file:
        for _ in range(400):
            file.write(bytes(1 << 20))
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    ended = await bench.python(script, limits={"disk_bytes": 32 * MIB})
    assert ended.logs.text in {b"ENOSPC\n", b"EFBIG\n"}


async def test_shared_memory_grows_with_the_memory_limit(bench: attempts.Bench) -> None:
    script = """
from multiprocessing import shared_memory
block = shared_memory.SharedMemory(create=True, size=80 << 20)
block.buf[:] = b"1" * (80 << 20)
print(bytes(block.buf[-1:]))
block.close()
block.unlink()
"""
    ended = await bench.python(script, limits={"memory_bytes": 256 * MIB, "disk_bytes": 32 * MIB})
    assert (ended.status, ended.logs.text) == (outcome.Status.COMPLETED, b"b'1'\n"), ended.error


async def test_files_in_memory_that_leave_no_room_for_reading_results_are_out_of_memory(bench: attempts.Bench) -> None:
    sizes = {"/dev/shm/a": 125, "results/a": 110, "/tmp/a": 17}
    filling = "".join(f"head -c {size}M /dev/zero > {place}; " for place, size in sizes.items())
    ended = await bench.shell(f"{filling} exit 0")
    assert ended.reason in {outcome.Reason.OOM, None}, ended.error  # the rest may be enough on another kernel


async def test_a_workspace_on_disk_is_kept_to_its_limit(bench: attempts.Bench) -> None:
    script = "for i in $(seq 100); do head -c 20000000 /dev/zero > $i; done; echo filled; sleep 100"
    ended = await bench.shell(script, limits={"disk_bytes": 200 * MIB})
    assert ended.reason is outcome.Reason.DISK_LIMIT, (ended.reason, ended.error)
    assert "disk" in ended.limits_hit


@pytest.mark.long
async def test_a_gibibyte_goes_through_with_memory_flat(bench: attempts.Bench) -> None:
    limits = {"memory_bytes": 512 * MIB, "disk_bytes": 2048 * MIB}
    before = _resident()
    ended = await bench.shell("head -c 1073741824 /dev/zero > results/big", limits=limits)
    assert ended.status is outcome.Status.COMPLETED, ended.error
    assert ended.results[0].artifact.size == 1 << 30
    assert _resident() - before < 100 * MIB


def _resident() -> int:
    """The most memory this process has ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_what_a_running_task_uses_can_be_seen(bench: attempts.Bench) -> None:
    stop, watcher = stopping.Stop(), attempts.Watcher()
    script = "x = bytearray(60 << 20)\nprint('up', flush=True)\nwhile True: pass"
    asked = bench.plan(["python3", "-c", script])
    run = asyncio.create_task(bench.executor.run(asked, stop, watcher))
    try:
        await waiting.wait_until(watcher.text, description="the task runs", seconds=30)

        async def seen() -> accounts.Usage | None:
            found = list((await bench.executor.usage()).values())
            return found[-1] if found and (found[-1].cpu_percent or 0) > 5 else None

        used: accounts.Usage | None = await waiting.wait_until(seen, description="it is seen to be busy", seconds=30)
        assert used is not None
    finally:
        stop.request(stopping.StopLevel.KILL, "seen enough")
        ended = await run
    assert used.now.memory_bytes is not None
    assert 60 * MIB <= used.now.memory_bytes <= attempts.LIMITS.memory_bytes
    assert used.memory_limit_bytes == attempts.LIMITS.memory_bytes
    assert used.now.network_received_bytes in {0, None}
    assert used.now.processes_now is not None
    assert used.now.processes_now >= 2
    assert ended.usage.peak_memory_bytes is not None
    assert ended.usage.peak_memory_bytes >= 60 * MIB, "a killed task's usage is told as well"
    assert ended.usage.wall_seconds > 0
    assert not await bench.executor.usage()


async def test_the_usage_of_one_that_took_too_long_is_told(bench: attempts.Bench) -> None:
    ended = await bench.python("while True: pass", limits={"timeout_seconds": 1.0})
    assert ended.reason is outcome.Reason.TIMEOUT
    assert ended.usage.wall_seconds >= 1
    assert ended.usage.cpu_seconds is not None
    assert ended.usage.cpu_seconds > 0.05
    assert ended.usage.peak_memory_bytes
