"""Records of single commands, killed at any moment and swept by others: none stays, and no living one is lost."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

from hivemind_worker.runtime.docker import command_records

NOWHERE = "unix:///nowhere"

KILLED = """
import os, pathlib, signal, sys
from hivemind_worker.runtime.docker import command_records
pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
command_records.Record(pathlib.Path(sys.argv[1]), "node", "unix:///nowhere").begin()
"""


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / command_records.FOLDER).iterdir())


def test_what_a_command_left_that_was_killed_before_its_record_had_a_name_is_swept(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    (half,) = files(tmp_path)
    living = command_records.Record(tmp_path, "living", NOWHERE)
    living.begin()
    assert asyncio.run(command_records.sweep(tmp_path)) == ()
    assert half not in files(tmp_path)
    assert files(tmp_path) == ["living.json"]
    living.end(is_clean=True)
    assert files(tmp_path) == []


def test_a_sweep_at_the_same_moment_takes_no_record_from_a_command_that_begins(tmp_path: Path) -> None:
    done = threading.Event()

    def sweep_all_the_time() -> None:
        while not done.is_set():
            asyncio.run(command_records.sweep(tmp_path))

    sweepers = [threading.Thread(target=sweep_all_the_time) for _ in range(3)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        for _ in range(200):
            record = command_records.Record(tmp_path, name := uuid.uuid4().hex, NOWHERE)
            record.begin()
            assert f"{name}.json" in files(tmp_path)
            record.end(is_clean=True)
    finally:
        done.set()
        for sweeper in sweepers:
            sweeper.join()
    asyncio.run(command_records.sweep(tmp_path))
    assert files(tmp_path) == []
