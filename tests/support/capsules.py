"""The real program of a capsule as a process here, and the worker's side of the conversation joined to it."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self, TypeVar

from hivemind_worker.runtime.capsule import conversation
from hivemind_worker.runtime.capsule import messages as m

Said = TypeVar("Said")
F_SETPIPE_SZ = 1031
ENVIRONMENT = ((b"PATH", b"/usr/bin:/bin"),)


def sandboxed(binary: Path, workspace: Path) -> list[str]:
    """The command that makes `binary` PID 1 of a bubblewrap sandbox, nobody, without any capability."""
    fences = [
        "--unshare-all",
        "--as-pid-1",
        "--die-with-parent",
        "--cap-drop",
        "ALL",
        "--uid",
        "65534",
        "--gid",
        "65534",
    ]
    system = ["--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"]
    system += ["--symlink", "usr/bin", "/bin", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    ours = ["--bind", str(workspace), "/workspace", "--ro-bind", str(binary), "/init"]
    return ["bwrap", *fences, *system, *ours, "--", "/init"]


@dataclasses.dataclass
class Heard:
    """All that one capsule said, put together."""

    messages: list[m.FromCapsule] = dataclasses.field(default_factory=list)
    outputs: dict[m.Stream, list[m.Output]] = dataclasses.field(default_factory=lambda: {s: [] for s in m.Stream})
    results: dict[bytes, bytearray] = dataclasses.field(default_factory=dict)
    modes: dict[bytes, int] = dataclasses.field(default_factory=dict)
    skipped: dict[bytes, m.Skipped] = dataclasses.field(default_factory=dict)
    discard: bool = False
    """Keep no content: for tests that measure."""
    _path: bytes = b""

    def add(self, message: m.FromCapsule) -> None:
        """Take note of one message."""
        if not (self.discard and isinstance(message, m.Output | m.ResultData)):
            self.messages.append(message)
        if isinstance(message, m.Output) and not self.discard:
            self.outputs[message.stream].append(message)
        elif isinstance(message, m.ResultBegin):
            self._path = message.path
            self.modes[message.path] = message.mode
            self.results[message.path] = bytearray(0 if self.discard else message.size)
        elif isinstance(message, m.ResultData) and not self.discard:
            self.results[self._path][message.offset : message.offset + len(message.data)] = message.data
        elif isinstance(message, m.ResultDropped):
            del self.results[self._path]
            self.skipped[self._path] = message.why
        elif isinstance(message, m.ResultSkipped):
            self.skipped[message.path] = message.why

    def output(self, stream: m.Stream = m.Stream.OUT) -> bytes:
        """What arrived of one stream, gaps closed."""
        return b"".join(piece.data for piece in self.outputs[stream])

    def one(self, kind: type[Said]) -> Said:
        """The only message of that kind."""
        found = [message for message in self.messages if isinstance(message, kind)]
        assert len(found) == 1, f"{len(found)} {kind.__name__} among {self.messages[:20]}"
        return found[0]


class Capsule:
    """A process that runs the program, and a Conversation with it."""

    def __init__(self, command: Sequence[str | Path], workspace: Path, *, discard: bool = False) -> None:
        """Start `command`, whose last process is the program; `workspace` is where it finds its own."""
        self.workspace = workspace
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment
        )
        self.talk = conversation.Conversation()
        self.heard = Heard(discard=discard)
        fcntl.fcntl(self.reading, F_SETPIPE_SZ, 1 << 20)

    @property
    def reading(self) -> int:
        """The descriptor the capsule's words come from."""
        assert self.process.stdout
        return self.process.stdout.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.put_away()

    def put_away(self) -> None:
        """End the process and close what belongs to it."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.kill()
        self.process.stdout.close()
        self.process.wait()

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        view = memoryview(data)
        assert self.process.stdin
        while view:
            view = view[os.write(self.process.stdin.fileno(), view) :]

    def say(self, *said: m.FromWorker) -> None:
        """Send messages."""
        for message in said:
            self.write(self.talk.send(message))

    def bytes(self, seconds: float = 30) -> bytes:
        """The next bytes; empty at the end. AssertionError after `seconds` of silence."""
        ready, _, _ = select.select([self.reading], [], [], seconds)
        assert ready, f"the capsule is silent for {seconds} s. The story: {self.talk.story()}"
        return os.read(self.reading, 1 << 20)

    def silent(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes for so long."""
        return not select.select([self.reading], [], [], seconds)[0]

    def hear(
        self, until: Callable[[m.FromCapsule], bool], *, seconds: float = 30, acknowledge: bool = True
    ) -> m.FromCapsule:
        """Listen until a message fits, and return it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if acknowledge and (ack := self.talk.acknowledgement()):
                self.write(ack)
            data = self.bytes(seconds)
            assert data, f"the capsule ended with {self.process.wait(10)}. The story: {self.talk.story()}"
            heard = self.talk.receive(data)
            for message in heard:
                self.heard.add(message)
            found = next((message for message in heard if until(message)), None)
            if found is not None:
                return found
        raise AssertionError(f"not heard in {seconds} s. The story: {self.talk.story()}")

    def begin(self, spec: m.Spec, files: Iterable[m.File] = ()) -> None:
        """From READY to START."""
        self.hear(lambda message: isinstance(message, m.Ready))
        self.say(spec, *files, m.Start())

    def finish(self, seconds: float = 30) -> Heard:
        """From here to DONE (or ERROR), then CLOSE; the process ends with 0."""
        if not any(isinstance(message, m.Done | m.Error) for message in self.heard.messages):
            self.hear(lambda message: isinstance(message, m.Done | m.Error), seconds=seconds)
        self.close()
        return self.heard

    def close(self) -> None:
        """CLOSE, and see it end with 0."""
        self.say(m.Close())
        assert self.process.wait(10) == 0


def shell(script: str, workspace: Path | str = "/workspace", **fields: object) -> m.Spec:
    """A spec that runs `script` with /bin/sh."""
    spec = m.Spec(argv=(b"/bin/sh", b"-c", script.encode()), env=ENVIRONMENT, workspace=os.fsencode(workspace))
    return dataclasses.replace(spec, **fields)  # type: ignore[arg-type]  # names checked by replace itself
