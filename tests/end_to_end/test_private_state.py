"""Nothing that the product keeps can be listed, read or connected to by another user, whichever verb comes first."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import intruder
import pytest
import waiting
from installed import HIVEMIND, Shell

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user as well")


@pytest.fixture
def shell() -> Iterator[Shell]:
    with intruder.open_folder() as home:
        found = Shell(home, "--isolation=sandbox")
        found.environment |= {"HIVEMIND_STATE_DIR": str(home / "state"), "HIVEMIND_LOG_DIR": str(home / "log")}
        yield found


def start(shell: Shell, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [HIVEMIND, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        cwd=shell.home, env=shell.environment, umask=0,
    )  # fmt: skip


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def open_to_others(home: Path) -> list[str]:
    """What the intruder gets at below the home, which itself is open."""
    found = [line for line in intruder.reach(home) if line != f"listed {home}"]
    # Of a root worker the user of sandboxes enters the folder of environments, and what is there is the packages'.
    return [line for line in found if "/cache/environments" not in line]


@pytest.mark.sandbox
def test_a_pool_and_a_worker_that_come_first_keep_all_to_themselves(shell: Shell) -> None:
    for name in ("state", "log"):
        (shell.home / name).mkdir()
        (shell.home / name).chmod(0o755)
    process = start(shell, "up", "--listen=127.0.0.1:0", "--isolation=sandbox")
    try:
        state = shell.home / "state"
        waiting.wait_for(
            lambda: all((state / name).exists() for name in ("worker.journal", "worker-http", "sandboxes.sock")),
            description="the worker has its journal, its note and its socket",
            seconds=30,
        )
        assert open_to_others(shell.home) == []
    finally:
        stop(process)
    assert open_to_others(shell.home) == []
    readable = [path for path in state.rglob("*") if stat.S_IMODE(path.lstat().st_mode) & 0o077]
    assert readable == []


FIRST = (
    ("pool", "--listen=127.0.0.1:0"),
    ("worker", "--isolation=sandbox", "--node-pool=127.0.0.1:1"),
    ("run", "--isolation=sandbox", "--", "sleep", "600"),
    ("doctor",),
    ("config", "show"),
    ("nodes",),
    ("status", "nobody"),
    ("tasks",),
    ("health",),
    ("images",),
    ("clean",),
    ("pool", "backup", "backup"),
    ("submit", "none.json"),
)


@pytest.mark.long
@pytest.mark.sandbox
@pytest.mark.parametrize("words", FIRST, ids=" ".join)
def test_whichever_verb_is_first(shell: Shell, words: tuple[str, ...]) -> None:
    process = start(shell, *words)
    lasts = words[0] in {"worker", "run"} or words[:2] == ("pool", "--listen=127.0.0.1:0")
    try:
        if lasts:
            names = {"worker": "worker.journal", "run": "pool.sock", "pool": "pool-http"}
            waiting.wait_for(
                lambda: any(shell.home.rglob(names[words[0]])),
                description=f"{words[0]} works",
                seconds=30,
            )
        else:
            process.wait(60)
        assert open_to_others(shell.home) == []
    finally:
        if process.poll() is None:
            stop(process)
    assert open_to_others(shell.home) == []


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_link_in_the_place_of_the_state_is_refused(shell: Shell, mode: int) -> None:
    (target := shell.home / "target").mkdir()
    shared = shell.home / "shared"
    shared.mkdir()
    shared.chmod(mode)
    intruder.plant("import os, sys; os.symlink(sys.argv[1], sys.argv[2])", target, shared / "state")
    said = shell.hivemind("pool", f"--state-dir={shared / 'state'}", "--listen=127.0.0.1:0")
    assert said.code == 78, said.err
    assert "symbolic link of another user" in said.err or "written to by everybody" in said.err
    assert not list(target.iterdir())
