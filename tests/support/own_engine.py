"""A Docker engine of one test's own, which may be killed and started again; without any network for its containers."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import engine_api
import system_packages
import test_images
import waiting


class OwnEngine:
    """One engine with its folder. ``start`` it, ``kill`` it, ``start`` it again."""

    def __init__(self, home: Path, *, live_restore: bool) -> None:
        self.url = f"unix://{home}/docker.sock"
        self._home = home
        self._live_restore = live_restore
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it answers."""
        command = [
            system_packages.program("dockerd") or "dockerd",
            f"--host={self.url}",
            f"--data-root={self._home}/data",
            f"--exec-root={self._home}/exec",
            f"--pidfile={self._home}/docker.pid",
            f"--live-restore={str(self._live_restore).lower()}",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            # Where a system's containerd is shared, ours are other names in it.
            f"--containerd-namespace={self._home.name}",
            f"--containerd-plugins-namespace={self._home.name}-plugins",
        ]
        with (self._home / "dockerd.log").open("ab") as log:
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
        """`kill -9`."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        # Numbers of processes that ended with it, and that nobody may have waited for: the next would wait for them.
        for left in ("docker.pid", "exec/containerd/containerd.pid"):
            (self._home / left).unlink(missing_ok=True)

    def end(self) -> None:
        """Have it end in order."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(30)


@contextlib.contextmanager
def running(*, live_restore: bool) -> Iterator[OwnEngine]:
    """An engine with the smallest image, gone at the end of the block with all it held."""
    # A short path, since a socket's name has at most 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="hmown-", dir="/tmp"))
    made = OwnEngine(home, live_restore=live_restore)
    try:
        made.start()
        assert test_images.busybox(made.url)
        yield made
        for container in engine_api.get(made.url, "/containers/json", all="1"):
            engine_api._call(made.url, "DELETE", f"/containers/{container['Id']}?force=1")
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            made.end()
        if made._process is not None and made._process.poll() is None:
            made.kill()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if line.split()[1].startswith(f"{home}/"):
                subprocess.run(["umount", "-l", line.split()[1]], check=False)
        shutil.rmtree(home, ignore_errors=True)
