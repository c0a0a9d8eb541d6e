"""What every executor must keep: caps of output and results, limits of memory, processes, disk; and what was used."""

from __future__ import annotations

import hashlib
import resource

import attempts
import pytest

from hivemind_worker.task import outcome, plan

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
    assert str(64 * MIB) in ended.error
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
