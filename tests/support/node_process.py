"""A worker node in a process of its own, with the real signal handlers: node_process.py ADDRESS FOLDER DRAIN [NAME]."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import node_parts

from hivemind_worker.cli import service


async def work(address: str, folder: Path, drain_seconds: float, name: str = "node-1") -> None:
    """Run the node until a signal."""
    node = node_parts.Node(address, folder, drain_seconds=drain_seconds, node_id=name)
    with service.signals(node.stop, lambda text: print(text, flush=True)):  # noqa: T201  (the test reads it)
        await node.node.run(node.stop)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:]))
