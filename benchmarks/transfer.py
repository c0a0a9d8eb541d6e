"""A large result from the task to the client's disk: rate, and the most memory of pool, worker and client.

Usage: python benchmarks/transfer.py [--mebibytes N]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

import common
import ours
import psutil

MIB = 2**20


class Peaks:
    """Highest resident memory of some processes, looked at ten times a second."""

    def __init__(self, **pids: int) -> None:
        self.megabytes = dict.fromkeys(pids, 0.0)
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.1):
            for name, process in self._processes.items():
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.megabytes[name] = max(self.megabytes[name], process.memory_info().rss / 1e6)


def measure(isolation: str, mebibytes: int) -> list[str]:
    """One transfer; checks the sum at the end. Returns a row of the table."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd())))
        address = f"127.0.0.1:{common.free_port()}"
        private = ours.private(folder)
        arguments = [*ours.HIVEMIND, "pool", "--listen", address, "--store", str(folder / "pool.db")]
        port = int(address.rsplit(":", 1)[1])
        pool = stack.enter_context(common.program(arguments, lambda: common.port_answers(port), **private))
        work = [*ours.HIVEMIND, "worker", "--isolation", isolation, "--default-image", common.TINY, "--node-id", "big"]
        worker = stack.enter_context(ours.worker(folder, address, work))
        client = stack.enter_context(ours.clients.Client(address))
        line = f"dd if=/dev/urandom of=results/big bs=1M count={mebibytes} 2>/dev/null; sha256sum results/big"
        needs = {"disk_limit": f"{mebibytes + 64}m", "memory_limit": f"{mebibytes + 512}m"}
        (task_id,) = client.submit({"command": line, **needs})
        (task,) = client.wait(task_id)
        said = b"".join(output.data for output in client.logs(task_id)).split()[0].decode()
        ours.expect(task.status == "completed", f"{task.status}: {task.result}")
        fetch = [*ours.HIVEMIND, "results", task_id, "-o", str(folder / "out"), "--node-pool", address]
        begun = time.perf_counter()
        fetching = subprocess.Popen(fetch, stdout=subprocess.DEVNULL)
        with Peaks(pool=pool.pid, worker=worker.pid, client=fetching.pid) as peaks:
            code = fetching.wait(600)
        took = time.perf_counter() - begun
        with (folder / "out" / "big").open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        ours.expect(code == 0 and found == said, f"exit {code}: {found} is not {said}")
        assert task.result is not None
        upload = task.ended_at - task.started_at
        most = {**peaks.megabytes}
        for name, process in (("pool", pool), ("worker", worker)):
            high = Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]
            most[name] = int(high) * 1024 / 1e6
        return [
            isolation,
            f"{upload:.1f}",
            f"{took:.1f}",
            f"{mebibytes * MIB / 1e6 / took:.0f}",
            *[f"{most[name]:.0f}" for name in ("worker", "pool", "client")],
            "right",
        ]


def main(mebibytes: int) -> None:
    """Measure and print."""
    kinds = [name for name, program in (("sandbox", "bwrap"), ("docker", "docker")) if common.have(program)]
    rows = [measure(kind, mebibytes) for kind in kinds]
    head = ["isolation", "run + upload s", "download s", "MB/s down", "worker MB", "pool MB", "client MB", "sha256"]
    common.table(f"One result of {mebibytes} MiB, task to client's disk", head, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=1024)
    main(parser.parse_args().mebibytes)
    sys.exit(0)
