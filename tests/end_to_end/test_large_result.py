"""A large result goes from the task to the client's disk, and pool, worker and client stay small."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import fences
import installed
import pytest
import services

MIB = 2**20
MOST_MIB = 64
"""By which a program may grow: half of the smallest of the results."""


def peak_mib(pid: int) -> float:
    """Highest resident memory of a process so far."""
    return high_water_mib(Path(f"/proc/{pid}/status").read_text())


def high_water_mib(status: str) -> float:
    return int(status.split("VmHWM:")[1].split(maxsplit=1)[0]) / 1024


def ended_with_peak(shell: installed.Shell, *words: str) -> float:
    """Run a verb to its end; its own highest resident memory in MiB, as it says itself at the end."""
    # Not getrusage: its maximum begins with what the forking parent, these tests, had in memory.
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(open('/proc/self/status').read(), file=sys.stderr))\n"
        "from hivemind_worker.__main__ import main\nsys.exit(main())\n"
    )
    python = installed.HIVEMIND.parent / "python"
    done = subprocess.run(
        [python, "-c", code, *words], cwd=shell.home, env=shell.environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return high_water_mib(done.stderr.decode())


@fences.ANY
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "mebibytes", [pytest.param(128, marks=pytest.mark.long), pytest.param(1024, marks=pytest.mark.long)]
)
def test_a_large_result_arrives_whole_and_memory_stays_flat(fenced: installed.Shell, mebibytes: int) -> None:
    with services.Services(fenced) as running:
        pool, address = running.pool()
        worker = running.worker(f"big-{fenced.home.name}"[-40:], address, *fenced.flags)
        line = f"head -c {mebibytes * MIB} /dev/urandom > results/big && sha256sum results/big"
        task = {"command": line, "disk_limit": f"{mebibytes + 64}m", "memory_limit": "256m"}
        before = {"pool": peak_mib(pool.pid), "worker": peak_mib(worker.pid)}
        submitted = fenced.feed(json.dumps(task).encode(), "submit", "-", f"--node-pool={address}")
        (task_id,) = submitted.text.split()
        ended = fenced.hivemind("wait", task_id, f"--node-pool={address}", "--timeout=300", VERB_SECONDS="320")
        assert ended.code == 0, running.logs()
        said = fenced.hivemind("logs", task_id, f"--node-pool={address}").text.split()[0]
        client = ended_with_peak(fenced, "results", task_id, "-o", "fetched", f"--node-pool={address}")
        with (fenced.home / "fetched" / "big").open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == said
        (fenced.home / "fetched" / "big").unlink()
        before["client"] = ended_with_peak(fenced, "status", task_id, f"--node-pool={address}")
        peaks = {"pool": peak_mib(pool.pid), "worker": peak_mib(worker.pid), "client": client}
        grown = {name: peak - before[name] for name, peak in peaks.items()}
        assert max(grown.values()) < MOST_MIB, (before, peaks)
