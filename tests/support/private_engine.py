"""A Docker engine that may be killed and started again, with or without live-restore. Root, and dockerd, are needed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

import engine_api
import system_packages
import test_engine
import test_images
import test_network
import waiting


def possible() -> bool:
    """Whether one can be had here."""
    return os.geteuid() == 0 and system_packages.program("dockerd") is not None


class PrivateEngine:
    """The engine, running or not. What it holds outlives its ends. ``start_seconds``: how long a start may take."""

    start_seconds = 60.0

    def __init__(self, place: test_network.Place, *, live_restore: bool) -> None:
        self.place = place
        self.home = place.home
        self.url = place.url
        self._live_restore = live_restore
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers; again where it ends meanwhile, as a service manager would.

        On a crowded machine an engine gives up waiting for its containerd, and ends.
        """
        self._launch()
        waiting.wait_for(self._answers, description="the engine answers", seconds=self.start_seconds)

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            self._launch()
        return engine_api.answers(self.url)

    def _launch(self) -> None:
        # A killed one leaves its number and its containerd's: the new one would take some other process for it, or the
        # dead one itself where nobody has buried it.
        for left in ("docker.pid", "exec/containerd/containerd.pid"):
            (self.home / left).unlink(missing_ok=True)
        self._process = test_engine.start(self.place, *(["--live-restore"] if self._live_restore else []))

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
        """End it in order, with what it runs; what its killed predecessors left goes with its place."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.thaw()
            self._end_containers()
        test_engine.end(self._process)
        self._process = None

    def _end_containers(self) -> None:
        # With live-restore they would outlive the engine.
        with contextlib.suppress(OSError, engine_api.EngineRefusedError):
            for item in engine_api.get(self.url, "/containers/json", all="1"):
                engine_api.delete(self.url, f"/containers/{item['Id']}?force=1&v=1")


@contextlib.contextmanager
def running(
    *, live_restore: bool = False, with_python: bool = False, start_seconds: float = PrivateEngine.start_seconds
) -> Iterator[PrivateEngine]:
    """Have one within this block, with the smallest image in it."""
    with test_network.place() as place:
        made = PrivateEngine(place, live_restore=live_restore)
        made.start_seconds = start_seconds
        try:
            made.start()
            test_images.busybox(made.url)
            if with_python:
                test_images.python(made.url)
            yield made
        finally:
            made.end()
