"""How far a conversation with a capsule is, as one value: kept before each ACK, so that another process can go on.

The capsule forgets what is acknowledged. So nothing is, unless it is kept here (output, exit) or on the disk in files
that this names (results). A checkpoint is small: head and tail of the output, and names.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from hivemind_worker.runtime import logs, results, start_time
from hivemind_worker.runtime.capsule import messages
from hivemind_worker.tasks import outcome


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """``after``: the sequence number up to which everything is safe; ``inside_file``: that was amid a result file."""

    after: int = 0
    inside_file: bool = False
    output: logs.Progress = dataclasses.field(default_factory=logs.Progress)
    results: results.Progress = dataclasses.field(default_factory=results.Progress)
    exited: messages.Exited | None = None

    @property
    def staged_names(self) -> frozenset[str]:
        """Half-written files that must not be cleared away."""
        half = self.results.half
        return frozenset() if half is None else frozenset({half.staged_name})

    @property
    def artifacts(self) -> frozenset[outcome.Artifact]:
        """Files in the store that it names."""
        return frozenset(file.artifact for file in self.results.files)


class Keeper(Protocol):
    """Where checkpoints of one attempt go."""

    async def accepted(self) -> None:
        """Wait until it is on record that the attempt is this node's; awaited before anything is made outside of it.

        Raises as `placed`. An executor that makes nothing but what ends with this process leaves it to `placed`, which
        waits for both at once.
        """

    async def placed(self, capsule: Mapping[str, str]) -> None:
        """Write down, durably, that the task is told to start, and how its capsule is found and entered again.

        Every executor awaits it before the task can begin: by its absence the next process knows that it has not.
        ``capsule`` is empty where nothing of it outlives this process: it will not be run a second time then either.

        Raises :class:`hivemind_worker.errors.NodeFault` where it cannot: then the task must not begin.
        """

    async def save(self, checkpoint: Checkpoint) -> None:
        """Write it down durably, in the place of the one before. Raises as `placed`."""

    async def ended(self, ended: outcome.Outcome) -> None:
        """Write the end down durably; awaited before the capsule is let go. Raises as `placed`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Custody:
    """Who keeps the records of an attempt, where its capsule is, how far an earlier process came.

    Not ``reattachable``: its capsule ends with this process, so that no other will go on with it. ``began``: when this
    process started the task, on the loop's clock.
    """

    keeper: Keeper
    capsule: Mapping[str, str] = dataclasses.field(default_factory=dict)
    after: Checkpoint | None = None
    reattachable: bool = True
    began: float | None = None

    def start_time(self) -> float | None:
        """When the task was started, by this process or an earlier one, on the monotonic clock; None: nobody knows."""
        return start_time.decode(self.capsule.get(_BEGAN, "")) if self.began is None else self.began

    def as_started(self, now: float, resume_key: bytes) -> Mapping[str, str]:
        """Return what is written down of the capsule as its task is about to be started."""
        return {**self.capsule, "resume_key": resume_key.hex(), _BEGAN: start_time.encode(now)}


_BEGAN: Final = "began"


def encode(checkpoint: Checkpoint) -> bytes:
    """Return it as bytes."""
    return json.dumps(dataclasses.asdict(checkpoint), default=_plain, separators=(",", ":")).encode()


def decode(data: bytes) -> Checkpoint:
    """Return what `encode` was given. Raises ValueError for anything else."""
    try:
        said = json.loads(data)
        output, taken, exited = said["output"], said["results"], said["exited"]
        streams = {
            name: {messages.Stream(int(key)): value for key, value in output[name].items()} for name in _BY_STREAM
        }
        half = taken["half"]
        return Checkpoint(
            after=int(said["after"]),
            inside_file=bool(said["inside_file"]),
            output=logs.Progress(
                _bytes(output["head"]),
                streams["ends"],
                streams["dropped"],
                {stream: _bytes(tail) for stream, tail in streams["tails"].items()},
            ),
            results=results.Progress(
                **{
                    **taken,
                    "files": tuple(_file(file) for file in taken["files"]),
                    "skipped": tuple(outcome.SkippedFile(**skipped) for skipped in taken["skipped"]),
                    "half": None if half is None else results.Half(**{**half, "path": _bytes(half["path"])}),
                }
            ),
            exited=None if exited is None else messages.Exited(**{**exited, "why": messages.Why(exited["why"])}),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"no checkpoint: {error}") from None


_BY_STREAM = ("ends", "dropped", "tails")


def _file(said: Mapping[str, Any]) -> outcome.ResultFile:
    return outcome.ResultFile(said["name"], outcome.Artifact(**said["artifact"]), said["mode"])


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} has no place in a checkpoint")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
