"""`hivemind clean`, and the worker that does the same by itself: told before, done as told, nobody else's touched."""

from __future__ import annotations

import json
import os
from pathlib import Path

import installed
import pytest
import services
import waiting

pytestmark = pytest.mark.sandbox
EVENT = json.dumps({"timestamp": "2026-01-01T00:00:00.000Z", "level": "info", "event_type": "x", "details": {}}) + "\n"
DAYS_AGO = 1_700_000_000.0


def folders(home: Path) -> tuple[str, str, str]:
    return f"--state-dir={home / 'state'}", f"--temp-dir={home / 'temp'}", f"--cache-dir={home / 'cache'}"


def old_logs(folder: Path) -> tuple[Path, Path]:
    """A log of ours that was put aside long ago, and another program's of the same name."""
    folder.mkdir(exist_ok=True)
    ours, others = folder / "worker.log.3", folder / "worker.log.4"
    ours.write_text(EVENT)
    others.write_text("not ours\n")
    for path in (ours, others):
        os.utime(path, (DAYS_AGO, DAYS_AGO))
    return ours, others


def test_a_dry_run_tells_and_a_run_does(tmp_path: Path) -> None:
    shell = installed.Shell(tmp_path)
    ours, others = old_logs(tmp_path / "log")
    where = ("--isolation=sandbox", *folders(tmp_path), f"--log-dir={ours.parent}", "--json")
    told = shell.hivemind("clean", "--dry-run", *where)
    fates = {each["name"]: each["fate"] for each in told.objects if each["kind"] == "log"}
    assert fates == {str(ours): "would go", str(others): "kept"}
    assert "1 thing would go" in told.err
    assert ours.exists()
    off = shell.hivemind("clean", "--no-cleanup-enabled", *where)
    assert "nothing is removed" in off.err
    assert ours.exists()
    done = shell.hivemind("clean", *where)
    assert done.code == 0, done.err
    (removed,) = [each for each in done.objects if each["fate"] == "removed"]
    assert removed["name"] == str(ours)
    assert "(cleanup_days)" in removed["why"]
    assert not ours.exists()
    assert others.exists()


def test_an_engine_that_is_away_counts_only_where_it_is_asked_for(tmp_path: Path) -> None:
    shell = installed.Shell(tmp_path)
    where = (*folders(tmp_path), f"--log-dir={tmp_path}", f"--docker-host=unix://{tmp_path}/nobody")
    assert shell.hivemind("clean", *where, "--isolation=auto").code == 0
    asked_for = shell.hivemind("clean", *where, "--isolation=docker")
    assert asked_for.code == 1
    assert "images: " in asked_for.err


@pytest.mark.long
def test_the_worker_tidies_by_itself(tmp_path: Path) -> None:
    shell = installed.Shell(tmp_path)
    ours, others = old_logs(tmp_path / "log")
    with services.Services(shell) as started:
        _, address = started.pool()
        cache = f"--cache-dir={tmp_path / 'cache'}"
        started.worker(
            "tidy", address, "--isolation=sandbox", cache, "--cleanup-interval=0.5", "--cleanup-memory-percent=0.1"
        )
        waiting.wait_for(lambda: not ours.exists(), description="the worker removes the old log", seconds=20)
        log = tmp_path / "log" / "worker.log"
        waiting.wait_for(lambda: "memory_let_go" in log.read_text(), description="memory is let go", seconds=20)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    (removed,) = [each for each in events if each["event_type"] == "cleanup_removed"]
    assert removed["details"]["name"] == str(ours)
    assert removed["node_id"] == "tidy"
    assert others.exists()


@pytest.mark.docker
def test_images_are_listed_with_whose_they_are(tmp_path: Path, docker_url: str, busybox_image: str) -> None:
    shell = installed.Shell(tmp_path)
    said = shell.hivemind("images", "--json", *folders(tmp_path), f"--docker-host={docker_url}")
    assert said.code == 0, said.err
    (row,) = [each for each in said.objects if each["name"] == busybox_image]
    assert row["kind"] == "image"
    assert row["bytes"] >= 0
    assert not row["ours"]
    assert row["last_used"] == 0.0
    assert row["kept_because"].startswith("not ours")
