"""A proxy in a process of its own whose answers to chosen calls are gzip bombs: grpc_bomb.py TARGET MIB CALL…

It says its address, and ends when its input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator

import grpc
import grpc_proxy

MIB = 1024**2


async def _serve(target: str, mebibytes: int, met: list[str]) -> None:
    size = mebibytes * MIB
    length = bytes(
        (size >> shift & 0x7F) | (0x80 if size >> shift + 7 else 0) for shift in range(0, size.bit_length(), 7)
    )
    bomb = b"\x12" + length + bytes(size)  # a string field: well-formed, and nothing but zeros
    faults = [grpc_proxy.Fault(call, "garbled", data=bomb) for call in met]
    async with grpc_proxy.before(target, *faults, compression=grpc.Compression.Gzip) as proxy:
        print(proxy.address, flush=True)  # noqa: T201  (whoever started it reads that)
        await asyncio.to_thread(sys.stdin.read)
        print(sum(fault.met for fault in faults), flush=True)  # noqa: T201


@contextlib.asynccontextmanager
async def before(target: str, mebibytes: int, *met: str) -> AsyncIterator[str]:
    """Have one within this block; at its end each of the calls must have met its bomb."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, target, str(mebibytes), *met, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        thrown = await process.stdout.read()
        await process.wait()
    assert int(thrown) == len(met)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
