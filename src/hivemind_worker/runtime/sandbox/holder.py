"""A program of its own that holds sandboxes, so that they outlive their worker; it knows nothing of tasks.

It is started by a worker, with a listening socket, in a session of its own, and found by the next worker. Asked by one
message each, it starts a program with the open files that come with the message, keeps some of those open, hands them
out again, and ends what it is told to end. Nothing passes through it: whoever has the files reads and writes itself.

Only the standard library, and little of it: there is one of these beside each worker.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from typing import Any

MESSAGE_BYTES = 128 * 1024
MOST_FILES = 32

ALONE_SECONDS = 900.0
"""Without any worker for so long, all that is held is ended: the pool has long given it to others."""

LOOK_SECONDS = 30.0
"""Without any worker it looks so often whether its folder is still there, by which the next one would find it."""

END_SECONDS = 2.0
"""How long one that was killed is waited for."""

FIRST_SECONDS = 30.0
"""For the worker that started this to come."""


class Holder:
    """What is held, by name: the program, and the files that are kept for whoever talks to it."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[subprocess.Popen[bytes], list[int]]] = {}

    def answer(self, asked: dict[str, Any], files: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Do what is asked; what is said, and the files that go with it."""
        match asked["do"]:
            case "start":
                return self._start(asked, files), []
            case "take":
                program, kept = self.held[asked["name"]]
                return {"pid": program.pid, "code": program.poll()}, kept
            case "look":
                return {"code": self.held[asked["name"]][0].poll()}, []
            case "drop":
                return {"code": self.drop(asked["name"])}, []
            case "names":
                return {"names": list(self.held)}, []
        return {"error": f"cannot {asked['do']!r}"}, []

    def drop(self, name: str) -> int | None:
        """End it; its exit code, None where there is none of that name."""
        program, kept = self.held.pop(name, (None, []))
        for file in kept:
            os.close(file)
        if program is None:
            return None
        program.kill()
        try:
            return program.wait(END_SECONDS)
        except subprocess.TimeoutExpired:  # others are not to wait for what nothing ends; it is reaped once it does
            return None

    def _start(self, asked: dict[str, Any], files: list[int]) -> dict[str, Any]:
        """`argv` names files by their place: {"file": 3}. The first three are the program's own, `kept` are ours."""
        argv = [word if isinstance(word, str) else str(files[word["file"]]) for word in asked["argv"]]
        kept = [files[place] for place in asked["kept"]]
        user = asked["user"]
        try:
            program = subprocess.Popen(
                argv,
                stdin=files[0],
                stdout=files[1],
                stderr=files[2],
                pass_fds=[file for file in files[3:] if file not in kept],
                env={},
                cwd="/",
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                umask=0o022,
            )
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            for file in files:
                os.close(file)
            return {"error": str(error)}
        for file in files:
            if file not in kept:
                os.close(file)
        self.held[asked["name"]] = (program, kept)
        return {"pid": program.pid}


def serve(listener: socket.socket, folder: str) -> None:
    """Answer until there is nothing left to hold and nobody who might ask, by the socket in this folder."""
    holder = Holder()
    choose = selectors.DefaultSelector()
    choose.register(listener, selectors.EVENT_READ)
    workers: set[socket.socket] = set()
    until = time.monotonic() + FIRST_SECONDS
    while workers or (time.monotonic() < until and os.path.isdir(folder)):  # noqa: PTH112  (nothing more is imported)
        for key, _ in choose.select(None if workers else min(LOOK_SECONDS, max(0.0, until - time.monotonic()))):
            found = key.fileobj
            if found is listener:
                worker, _ = listener.accept()
                workers.add(worker)
                choose.register(worker, selectors.EVENT_READ)
            elif isinstance(found, socket.socket) and not _heard(holder, found):
                choose.unregister(found)
                found.close()
                workers.discard(found)
                until = time.monotonic() + (ALONE_SECONDS if holder.held else 0.0)
    for name in list(holder.held):
        holder.drop(name)


def _heard(holder: Holder, worker: socket.socket) -> bool:
    """Answer one message; false where the worker is gone."""
    try:
        said, files, _, _ = socket.recv_fds(worker, MESSAGE_BYTES, MOST_FILES)
        if not said:
            return False
        try:
            answer, given = holder.answer(json.loads(said), files)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            answer, given = {"error": f"{type(error).__name__}: {error}"}, []
        socket.send_fds(worker, [json.dumps(answer).encode()], given)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    os.umask(0o077)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # what is meant for the worker; this goes when nothing is left
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
