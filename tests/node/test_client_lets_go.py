"""The client of ordinary programs lets go of its connections, also where it leaves streams that have more to say."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pool_parts

PROGRAM = """
import os, sys
from hivemind_worker.client.client import Client

def sockets():
    names = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return {os.readlink(name) for name in names if os.path.islink(name) and "socket:" in os.readlink(name)}

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # so that gRPC's own threads come late
for _ in range(40):
    with Client(sys.argv[1]) as client:
        streams = [client.watch(sys.argv[2]) for _ in range(3)]
        assert {next(stream).status for stream in streams} == {"queued"}
        streams[0].close()
print(len(sockets()))
"""


async def test_streams_that_are_left_open_leave_no_connection(tmp_path: Path) -> None:
    async with pool_parts.running(tmp_path) as at:
        (task_id,) = await at.submit()
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, at.pool.address, task_id),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await program.communicate()
    assert program.returncode == 0, err.decode()
    assert b"Event loop is closed" not in err
    # The one poller of gRPC that a process keeps has a pair of its own, while it lasts.
    assert int(out) <= 2, err.decode()
