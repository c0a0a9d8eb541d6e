"""A Docker engine that may be killed and started again, with or without live-restore. Root, and dockerd, are needed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import engine_api
import system_packages
import test_engine
import test_images
import waiting


def possible() -> bool:
    """Whether one can be had here."""
    return os.geteuid() == 0 and system_packages.program("dockerd") is not None


class PrivateEngine:
    """The engine, running or not. What it holds outlives its ends."""

    def __init__(self, home: Path, bridge: int, *, live_restore: bool) -> None:
        self.home = home
        self.url = f"unix://{home}/docker.sock"
        self._bridge = bridge
        self._live_restore = live_restore
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers."""
        # A killed one leaves its number and its containerd's: the new one would take some other process for it, or the
        # dead one itself where nobody has buried it.
        for left in ("docker.pid", "exec/containerd/containerd.pid"):
            (self.home / left).unlink(missing_ok=True)
        command = test_engine._command(self.home, self.url, self._bridge)
        command += ["--live-restore"] if self._live_restore else []
        with (self.home / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": system_packages.ADMIN_PATH},
                start_new_session=True,
            )
        waiting.wait_for(lambda: engine_api.answers(self.url), description="the engine answers", seconds=60)

    def kill(self) -> None:
        """Kill it, -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Stop it in its tracks."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def end(self) -> None:
        """End it in order, with what it runs."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.thaw()
            self._end_containers()
        test_engine._end(self._process)
        self._process = None
        self._bury()

    def _bury(self) -> None:
        """End what its killed predecessors left: shims that no engine knows any more, and what hangs on them."""
        mine = f"{self.home}/".encode()
        parents: dict[int, int] = {}
        shims = set()
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    stat = Path(entry.path, "stat").read_text(encoding="ascii", errors="replace")
                    parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
                    words = Path(entry.path, "cmdline").read_bytes()
                    if b"containerd-shim" in words and mine in words:
                        shims.add(int(entry.name))
        for pid in [*(pid for pid, parent in parents.items() if parent in shims), *shims]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _end_containers(self) -> None:
        # With live-restore they would outlive the engine.
        with contextlib.suppress(OSError, engine_api.EngineRefusedError):
            for item in engine_api.get(self.url, "/containers/json", all="1"):
                engine_api._call(self.url, "DELETE", f"/containers/{item['Id']}?force=1&v=1")


@contextlib.contextmanager
def running(*, live_restore: bool = False, with_python: bool = False) -> Iterator[PrivateEngine]:
    """Have one within this block, with the smallest image in it."""
    home = Path(tempfile.mkdtemp(prefix="hmkill-", dir=test_engine.TEMPORARY))
    bridge = test_engine._make_bridge()
    made = PrivateEngine(home, bridge, live_restore=live_restore)
    try:
        made.start()
        test_images.busybox(made.url)
        if with_python:
            test_images.python(made.url)
        yield made
    finally:
        made.end()
        subprocess.run([test_engine._ip(), "link", "delete", f"hmtest{bridge}"], check=False, capture_output=True)
        test_engine._unmount_below(home)
        shutil.rmtree(home, ignore_errors=True)
