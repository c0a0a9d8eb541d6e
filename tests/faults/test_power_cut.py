"""A power cut and a clock step, as chaos does them: what was synced stays and the rest may go; one clock moves."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import preloaded
import pytest
import small_disk
import system_packages
import unsynced

needs_compiler = pytest.mark.skipif(system_packages.program("gcc") is None, reason="no compiler")
needs_mounts = pytest.mark.skipif(not small_disk.can_mount(), reason="only root may mount")

PROGRAM = """
import os, sqlite3, sys
root = sys.argv[1]
os.chdir(root)
open("plain", "w").write("never synced")
file = open("synced", "wb", buffering=0)
file.write(b"a" * 10)
os.fsync(file.fileno())
file.write(b"b" * 10); file.seek(2); file.write(b"ccc"); file.truncate(4)
os.mkdir("names")
folder = os.open("names", os.O_RDONLY)
for name in ("kept", "taken", "gone"):
    made = os.open(f"names/{name}", os.O_CREAT | os.O_WRONLY)
    os.write(made, name.encode())
    os.fsync(made)
os.fsync(folder)
new = os.open("names/new", os.O_CREAT | os.O_WRONLY)
os.write(new, b"new content")
os.fsync(new)
os.rename("names/new", "names/taken")
os.unlink("names/gone")
sql = sqlite3.connect("store.sqlite")
sql.execute("PRAGMA journal_mode=WAL"); sql.execute("PRAGMA synchronous=FULL")
sql.execute("CREATE TABLE numbers (number)")
for number in range(50):
    with sql:
        sql.execute("INSERT INTO numbers VALUES (?)", (number,))
sql.execute("INSERT INTO numbers VALUES (99)")
print("acknowledged", open("/proc/sys/kernel/random/boot_id").read().strip(), flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk.mounted(tmp_path / "disk", 64):
        yield tmp_path / "disk"


@needs_compiler
@needs_mounts
def test_what_was_synced_outlives_a_power_cut_and_each_other_change_may_be_lost(tmp_path: Path, disk: Path) -> None:
    library, log = preloaded.build("unsynced", tmp_path), tmp_path / "log"
    log.mkdir()
    environment = {**os.environ, **unsynced.environment([disk], log), **preloaded.environment({"unsynced": library})}
    seen: dict[str, set[bytes | None]] = {}
    boot_ids: set[str] = set()
    for seed in range(6):
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(disk)], env=environment, capture_output=True, text=True, check=False
        )
        said, _, boot_id = run.stdout.partition(" ")
        assert said == "acknowledged", run.stderr
        boot_ids.add(boot_id)
        assert unsynced.roll_back([disk], log, random.Random(seed)) > 0
        with contextlib.closing(sqlite3.connect(disk / "store.sqlite")) as sql:
            assert sql.execute("SELECT count(*) FROM numbers").fetchone() == (50,)
            assert sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for name in ("plain", "synced", "names/kept", "names/taken", "names/gone"):
            path = disk / name
            seen.setdefault(name, set()).add(path.read_bytes() if path.exists() else None)
        for path in sorted(disk.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert len(boot_ids) == 6
    assert seen["names/kept"] == {b"kept"}
    assert seen["names/taken"] == {b"taken", b"new content"}
    assert seen["names/gone"] == {b"gone", None}
    assert b"a" * 10 in seen["synced"]
    assert all(content and content.startswith(b"aa") for content in seen["synced"])
    assert seen["plain"] & {b"", None}


@needs_compiler
def test_a_stepped_clock_moves_the_wall_clock_alone(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    preloaded.set_clock(clock, -86_400)
    program = """
import sys, time, pathlib
begin = time.monotonic()
print(time.time(), flush=True)
sys.stdin.readline()
print(time.time(), flush=True)
time.sleep(0.05)
assert 0.05 <= time.monotonic() - begin < 60
"""
    libraries = {"stepped_clock": preloaded.build("stepped_clock", tmp_path)}
    environment = {**os.environ, **preloaded.environment(libraries), "STEPPED_CLOCK": str(clock)}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert abs(float(process.stdout.readline()) - time.time() + 86_400) < 60
        preloaded.set_clock(clock, 3_600)
        process.stdin.write("\n")
        process.stdin.flush()
        assert abs(float(process.stdout.readline()) - time.time() - 3_600) < 60
    assert process.returncode == 0
