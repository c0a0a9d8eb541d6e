"""L01 at the capsule: its worker is killed again and again, the next one goes on, and nothing is missing."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import subprocess
import sys
from pathlib import Path

import pytest
import waiting

from hivemind_worker.runtime.capsule import init

WORKER = Path(__file__).resolve().parents[1] / "support" / "capsule_worker.py"
MIB = 1024 * 1024
SCRIPT = """
i=0
while [ $i -lt 300 ]; do echo "line $i"; echo "complaint $i" >&2; i=$((i+1)); sleep 0.008; done
mkdir -p results/d
head -c 125829120 /dev/zero | tr '\\0' 'x' > results/d/large
seq 1 200000 > results/numbers
ln -s /etc/passwd results/link
exit 7
"""


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 8))])
def test_l01_a_capsule_whose_worker_is_killed_at_any_moment_loses_nothing(seed: int, tmp_path: Path) -> None:
    choose = random.Random(seed)
    (tmp_path / "workspace" / "results").mkdir(parents=True)
    (tmp_path / "script").write_text(SCRIPT)
    to_capsule, from_capsule = os.pipe(), os.pipe()
    for fd in (to_capsule[1], from_capsule[0]):
        os.set_inheritable(fd, True)
    capsule = subprocess.Popen([init.binary_path(platform.machine())], stdin=to_capsule[0], stdout=from_capsule[1])
    kills = 0
    try:
        os.close(to_capsule[0])
        os.close(from_capsule[1])
        while not (tmp_path / "ended.json").exists():
            worker = subprocess.Popen(
                [sys.executable, WORKER, tmp_path, str(from_capsule[0]), str(to_capsule[1])],
                pass_fds=(from_capsule[0], to_capsule[1]),
            )
            # Until the task has begun there is nothing to take over; then each worker lives for a moment only.
            waiting.wait_for((tmp_path / "placed").exists, description="the task begins", seconds=30)
            try:
                worker.wait(choose.uniform(0.4, 1.0) if kills < 12 else 60)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
                kills += 1
            else:
                assert worker.returncode == 0
        assert capsule.wait(20) == 0
    finally:
        capsule.kill()
        capsule.wait()
        os.close(from_capsule[0])
        os.close(to_capsule[1])
    ended = json.loads((tmp_path / "ended.json").read_text())
    assert kills >= 1
    assert (ended["fault"], ended["status"], ended["truncated"]) == ("", 7, False)
    lines = ended["output"].splitlines()
    assert [line for line in lines if line.startswith("line")] == [f"line {number}" for number in range(300)]
    assert [line for line in lines if line.startswith("compl")] == [f"complaint {number}" for number in range(300)]
    numbers = b"".join(b"%d\n" % number for number in range(1, 200_001))
    assert ended["results"] == {
        "d/large": hashlib.sha256(b"x" * 120 * MIB).hexdigest(),
        "numbers": hashlib.sha256(numbers).hexdigest(),
    }
    assert ended["skipped"] == ["link"]
    assert not list((tmp_path / "store" / "staging").glob("*.part"))
