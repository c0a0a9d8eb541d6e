"""The words of the conversation with a capsule, as frozen dataclasses; both directions."""

from __future__ import annotations

import dataclasses
import enum
from typing import Final

from hivemind_worker.runtime.capsule.tunnel_messages import FromTunnel, ToTunnel

INPUT_WINDOW: Final = 256 * 1024
"""Bytes of stdin that may be under way and not yet taken by the task (the buffer inside the capsule)."""

NONCE_BYTES: Final = 16
"""Length of the random mark that a RESUME carries and its READY repeats."""

MAX_KEY_BYTES: Final = 64
"""Longest `resume_key`."""


class Stdin(enum.IntEnum):
    """Where the task's stdin comes from."""

    EMPTY = 0
    """/dev/null."""
    STREAM = 1
    """INPUT frames, until an empty one closes it."""


class OnDisconnect(enum.IntEnum):
    """What the capsule does when its own stdin ends (a Docker attach never ends it, a sandbox's worker dying does)."""

    KEEP = 0
    STOP = 1


class Why(enum.IntEnum):
    """Why the task ended."""

    OWN = 0
    """By itself (also when it was killed by a signal that was not ours, for instance by the kernel's OOM killer)."""
    TIMEOUT = 1
    STOP = 2
    DISCONNECT = 3


class State(enum.IntEnum):
    """How far the capsule is, as READY tells it."""

    IDLE = 0
    LOADING = 1
    RUNNING = 2
    COLLECTING = 3
    """EXITED has been said."""
    DONE = 4
    FAILED = 5


class Skipped(enum.IntEnum):
    """Why something under the results directory was not sent."""

    SYMLINK = 1
    FIFO = 2
    SOCKET = 3
    DEVICE = 4
    UNREADABLE = 5
    """Could not be opened or read with the task's own rights, or changed while being read."""
    BYTES = 6
    """Would not have fitted under a byte cap; smaller files after it may still have."""
    COUNT = 7
    DEPTH = 8
    TIME = 9
    NAME = 10
    """Path longer than 4096 bytes."""


class Capped(enum.IntFlag):
    """Which caps the collecting of results ran into."""

    NONE = 0
    BYTES = 1
    COUNT = 2
    DEPTH = 4
    TIME = 8


class ErrorCode(enum.IntEnum):
    """What the capsule could not do. Each of them ends the conversation (the task has not run, or is being killed)."""

    PROTOCOL = 1
    """It did not understand what it was sent."""
    SPEC = 2
    """The spec asks for what it cannot give (a bad field, a user it is not, a workspace it cannot open)."""
    FILE = 3
    """An input file could not be written."""
    INTERNAL = 4
    """The capsule lacks what a start needs (file descriptors)."""


class Stream(enum.IntEnum):
    """Which of the task's two outputs."""

    OUT = 1
    ERR = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What the task may take; times in milliseconds, sizes in bytes. All are enforced inside, and checked again
    outside.
    """

    timeout_ms: int = 0
    """Wall clock from START; 0 = none."""
    grace_ms: int = 5_000
    """From SIGTERM to SIGKILL."""
    output_head: int = 1 << 20
    """First bytes of stdout and stderr together, sent live."""
    output_tail: int = 64 << 10
    """Last bytes of each stream beyond the head, sent at the end."""
    results_bytes: int = 1 << 30
    """Bytes of content really sent (holes in sparse files are not)."""
    results_apparent: int = 1 << 30
    """Sum of file sizes as `ls -l` shows them, holes included."""
    results_count: int = 10_000
    """Regular files."""
    results_depth: int = 32
    """Path parts below the results directory."""
    results_ms: int = 600_000
    """Time spent reading; waiting for a slow worker does not count."""
    window: int = 4 << 20
    """Bytes of frames kept for RESUME until they are acknowledged."""


@dataclasses.dataclass(frozen=True, slots=True)
class ResourceLimit:
    """One setrlimit(2) for the task: resource number of Linux (`resource.RLIMIT_*`), soft and hard value (2**64-1 =
    unlimited).
    """

    resource: int
    soft: int
    hard: int


# worker → capsule


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """What to run."""

    argv: tuple[bytes, ...]
    env: tuple[tuple[bytes, bytes], ...] = ()
    """Exactly the task's environment: nothing is inherited. argv[0] without '/' is looked up in its PATH (default
    /usr/local/bin:/usr/bin:/bin).
    """
    cwd: bytes = b""
    """Absolute, or relative to the workspace (the default: the workspace itself)."""
    workspace: bytes = b"/workspace"
    """Absolute; must exist."""
    stdin: Stdin = Stdin.EMPTY
    limits: Limits = Limits()
    on_disconnect: OnDisconnect = OnDisconnect.KEEP
    resume_key: bytes = b""
    """If given, a RESUME must carry the same bytes; keep it where the task cannot see it."""
    expect_uid: int | None = None
    """Refuse (ERROR SPEC) when running as another user."""
    rlimits: tuple[ResourceLimit, ...] = ()
    proxy_port: int = 0
    """Port on the capsule's loopback whose connections become tunnels to the worker; 0: none."""


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A piece of one input file; pieces of one file follow each other, first with `begin`, last with `end` (both when
    it is one).
    """

    path: bytes
    """Relative to the workspace; see `paths`."""
    data: bytes
    mode: int = 0o644
    offset: int = 0
    begin: bool = True
    end: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """Run it now."""


@dataclasses.dataclass(frozen=True, slots=True)
class Input:
    """More stdin; empty data closes it."""

    data: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Signal:
    """Send this signal to the task's process group."""

    number: int


@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    """SIGTERM to the task's process group, after the grace SIGKILL to every process. Grace None: the spec's."""

    grace_ms: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Ack:
    """Everything up to this sequence number is safe here; forget it."""

    sequence: int


@dataclasses.dataclass(frozen=True, slots=True)
class Resume:
    """A new stream begins: answer with READY, forget all up to `after`, repeat what follows it."""

    after: int
    nonce: bytes
    key: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True)
class Close:
    """Nothing more is wanted: kill what is left and exit 0."""


# capsule → worker


@dataclasses.dataclass(frozen=True, slots=True)
class Ready:
    """Who speaks, and how far it is. Bears no sequence number; said at the start and as the answer to RESUME."""

    state: State
    nonce: bytes = b""
    """Empty at the start; else the RESUME's."""
    version: int = 1
    pid1: bool = True
    """False: not PID 1, so killing reaches only what it can find."""
    last: int = 0
    """Highest sequence number said so far."""
    kept_from: int = 1
    """Lowest that can be repeated."""
    exited_at: int = 0
    """Sequence number of EXITED; 0 = not yet said."""
    done_at: int = 0
    """Sequence number of DONE; 0 = not yet said."""
    received: int = 0
    """Frames taken from the worker, over all streams."""


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """Bytes the task wrote; a jump in `offset` is what was cut out."""

    stream: Stream
    offset: int
    data: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Taken:
    """So many bytes of stdin have been passed to the task."""

    total: int


@dataclasses.dataclass(frozen=True, slots=True)
class Exited:
    """How the task ended; all its output has been said, none of its processes is left."""

    status: int | None
    """Exit code, or None if a signal ended it. 127 / 126: argv[0] not found / not executable, see `error`."""
    signal: int | None
    why: Why
    error: str = ""
    """Why the program could not be started; else empty."""
    wall_us: int = 0
    utime_us: int = 0
    stime_us: int = 0
    maxrss_bytes: int = 0
    """Largest single process."""
    read_bytes: int = 0
    written_bytes: int = 0
    out_total: int = 0
    err_total: int = 0
    out_dropped: int = 0
    """Of out_total, bytes that were neither in head nor tail."""
    err_dropped: int = 0
    leftovers: int = 0
    """Processes that were still there after the task itself had ended."""


@dataclasses.dataclass(frozen=True, slots=True)
class ResultBegin:
    """A result file begins; its content is zeros where no ResultData says otherwise. Files come in ascending order of
    path parts.
    """

    path: bytes
    mode: int
    """Permission bits as they are inside, setuid, setgid and sticky included."""
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class ResultData:
    """A range of the file begun last, ascending."""

    offset: int
    data: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class ResultEnd:
    """The file begun last is complete."""


@dataclasses.dataclass(frozen=True, slots=True)
class ResultDropped:
    """The file begun last could not be sent whole: forget it."""

    why: Skipped


@dataclasses.dataclass(frozen=True, slots=True)
class ResultSkipped:
    """Not sent. At most 1,000 are named; DONE counts all."""

    path: bytes
    why: Skipped


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """All results have been said."""

    files: int
    content_bytes: int
    """Bytes sent as ResultData of files that ended."""
    skipped: int = 0
    capped: Capped = Capped.NONE
    error: str = ""
    """Why the results could not be looked at; else empty."""


@dataclasses.dataclass(frozen=True, slots=True)
class Error:
    """What the capsule could not do; nothing but CLOSE or RESUME follows."""

    code: ErrorCode
    text: str


FromWorker = Spec | File | Start | Input | Signal | Stop | Ack | Resume | ToTunnel | Close
FromCapsule = (
    Ready
    | Output
    | Taken
    | Exited
    | ResultBegin
    | ResultData
    | ResultEnd
    | ResultDropped
    | ResultSkipped
    | Done
    | FromTunnel
    | Error
)
Message = FromWorker | FromCapsule
