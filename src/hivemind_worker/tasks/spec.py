"""TaskSpec: what was asked, validated once, with every refusal naming its field."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hivemind_worker import errors, units
from hivemind_worker.tasks import checks, learning, names, outcome, plan, processing, resources

CPU_PERIOD = 100_000
"""``cpu_quota`` of one full core: the scheduler period in microseconds that Docker and the reference document use."""

DEFAULT_MEMORY_BYTES = units.GIB
"""Memory limit of a task that names none: the reference document's ``1g``."""

DEFAULT_DISK_BYTES = 512 * units.MIB
"""Disk limit of a task that names none: half of the default memory, so that its workspace lies in memory, where the
limit is kept to the byte and no volume is needed."""

DEFAULT_PIDS = 256
"""Processes and threads of a task that names none: the golden container's number."""

INLINE_BYTES = 3 * units.MIB
"""Most bytes of inline content in one task: a message is 4 MiB at most, and larger files are uploaded instead."""

KINDS = ("command", "python", "ml", "data_processing")
"""The values of ``type``."""

_RESOURCES = ("cpu_cores", "memory_gb", "disk_gb", "gpus")

_FIELDS_OF_KIND: Mapping[str, frozenset[str]] = {
    "command": frozenset({"command"}),
    "python": frozenset({"code", "requirements", "args"}),
    "ml": frozenset({"code", "requirements", "args"}) | learning.FIELDS,
    "data_processing": processing.FIELDS,
}
_MARKS: Mapping[str, frozenset[str]] = {
    "command": frozenset({"command"}),
    "python": frozenset({"code", "requirements", "args"}),
    "ml": learning.FIELDS - {"options"},
    "data_processing": processing.FIELDS - {"options"},
}
"""The fields that tell the kind where ``type`` does not: a script belongs to an ml task as well, options to two."""

_COMMON_FIELDS = frozenset(
    {
        *("id", "type", "docker_image", "input_files", "environment", "secrets", "network"),
        *("memory_limit", "cpu_quota", "timeout", "disk_limit", "pids_limit", "required_resources"),
        *("priority", "max_attempts", "labels", "node_selector"),
    }
)
_FIELDS = _COMMON_FIELDS.union(*_FIELDS_OF_KIND.values())
_FIELDS_WITH_KIND = {kind: _COMMON_FIELDS | fields for kind, fields in _FIELDS_OF_KIND.items()}


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An input file whose content was uploaded before: only its address is in the task. ``size`` may be -1: unknown."""

    sha256: str
    size: int = -1


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as its submitter described it; ``None`` where nothing was said and the node's default applies.

    Bytes, seconds, ``cpu_quota`` in 1/100000 of a core. Made by :func:`parse` alone.
    """

    kind: str
    id: str | None = None
    docker_image: str | None = None
    command: tuple[str, ...] | str | None = None
    code: str | None = None
    requirements: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    learning: learning.Learning | None = None
    processing: processing.Processing | None = None
    input_files: Mapping[str, bytes | StoredFile] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    memory_limit: int | None = None
    cpu_quota: int | None = None
    timeout: float | None = None
    disk_limit: int | None = None
    pids_limit: int | None = None
    required: resources.Resources = field(default_factory=resources.Resources)
    network: plan.Network = plan.Network.NONE
    priority: int = 0
    max_attempts: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs(self) -> resources.Resources:
        """What must be free for this task: the larger of its limits and of what it requires."""
        limits = resources.Resources(
            (self.cpu_quota or CPU_PERIOD) / CPU_PERIOD,
            self.memory_limit or DEFAULT_MEMORY_BYTES,
            self.disk_limit or DEFAULT_DISK_BYTES,
        )
        return limits.at_least(self.required)


def parse(given: Mapping[str, object]) -> TaskSpec:
    """Read a task as JSON and the Python client write it.

    Raises :class:`errors.InvalidTask`, naming the field, for whatever a task may not say; nothing else.
    """
    if not isinstance(given, Mapping):
        raise errors.InvalidTask("task", f"must be an object with fields, not {type(given).__name__}")
    said = {key: value for key, value in given.items() if value is not None}
    _only_fields_of_some_kind(said)
    kind = _kind(said)
    _only_fields_of(kind, said)
    values: dict[str, Any] = {}
    if kind == "command":
        values["command"] = _command(said.get("command"))
    elif kind == "python" or (kind == "ml" and "code" in said):
        values["code"] = _code(said.get("code"))
    if kind == "ml":
        values["learning"] = learning.parse(said, has_code="code" in said)
    elif kind == "data_processing":
        values["processing"] = processing.parse(said)
    # A task says little of what it could, and its submitter, the pool and the node each read it while someone waits.
    values |= {attribute: read(said[name]) for name, (attribute, read) in _READERS.items() if name in said}
    if "secrets" in values and (twice := values["secrets"].keys() & values.get("environment", {}).keys()):
        raise errors.InvalidTask(f"secrets[{min(twice)!r}]", "is in environment too: name it once")
    return TaskSpec(kind=kind, **values)


def _kind(said: Mapping[str, object]) -> str:
    hints = [kind for kind, fields in _MARKS.items() if fields & said.keys()]
    if hints == ["python", "ml"]:
        hints = ["ml"]
    kind = said.get("type")
    if kind is None:
        if len(hints) == 1:
            return hints[0]
        if hints:
            raise errors.InvalidTask("type", f"fields of {' and of '.join(hints)} are there; a task does one thing")
        raise errors.InvalidTask("type", f"missing, and no field tells it; one of {', '.join(KINDS)}")
    if not isinstance(kind, str) or kind not in KINDS:
        raise errors.InvalidTask("type", f"{str(kind)[:40]!r} is no kind of task; one of {', '.join(KINDS)}")
    return kind


def _only_fields_of_some_kind(said: Mapping[str, object]) -> None:
    """Before anything else: a slip of the pen in `command` must not read as a task without a type."""
    if said.keys() <= _FIELDS:
        return
    strange = next(name for name in said if name not in _FIELDS)
    near = difflib.get_close_matches(str(strange), sorted(_FIELDS), n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    raise errors.InvalidTask(str(strange)[:60], f"a task has no such field{meant}")


def _only_fields_of(kind: str, said: Mapping[str, object]) -> None:
    if said.keys() <= _FIELDS_WITH_KIND[kind]:
        return
    for other, fields in _FIELDS_OF_KIND.items():
        alien = next((name for name in said if name in fields - _FIELDS_OF_KIND[kind]), None)
        if alien is not None:
            raise errors.InvalidTask(alien, f"belongs to {other} tasks, and this is a {kind} task")


def _command(value: object) -> tuple[str, ...] | str:
    if isinstance(value, str):
        checks.text("command", value, most=INLINE_BYTES)
        if not value.strip():
            raise errors.InvalidTask("command", "is empty")
        return value
    if value is not None and (isinstance(value, bytes) or not isinstance(value, Sequence)):
        raise errors.InvalidTask("command", f"must be a list of words or one string, not {type(value).__name__}")
    argv = checks.words("command", value if value is not None else ())
    if not argv or not argv[0]:
        raise errors.InvalidTask("command", "is empty; a list of words, or one string for the shell")
    return argv


def _code(value: object) -> str:
    if value is None:
        raise errors.InvalidTask("code", "missing: a python task needs its script")
    code = checks.text("code", value, most=INLINE_BYTES)
    if not code.strip():
        raise errors.InvalidTask("code", "is empty")
    return code


def _input_files(value: object) -> dict[str, bytes | StoredFile]:
    files: dict[str, bytes | StoredFile] = {}
    inline = 0
    for path, content in checks.mapping("input_files", value, most=10_000).items():
        where = f"input_files[{path[:60]!r}]"
        names.input_path(where, path)
        files[path] = stored = _content(where, content)
        inline += len(stored) if isinstance(stored, bytes) else 0
    if inline > INLINE_BYTES:
        raise errors.InvalidTask(
            "input_files", f"{inline} bytes inline, at most {INLINE_BYTES}; upload large files and name their sha256"
        )
    names.no_collisions("input_files", files)
    return files


def _content(where: str, content: object) -> bytes | StoredFile:
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return checks.text(where, content, most=INLINE_BYTES, nul=True).encode()
    if isinstance(content, Mapping) and "base64" in content and len(content) == 1:
        return checks.base64(where, content["base64"])
    if isinstance(content, Mapping) and content.keys() <= {"sha256", "size"} and "sha256" in content:
        size = content.get("size", -1)
        return StoredFile(checks.sha256(where, content["sha256"]), checks.whole(f"{where}.size", size, -1, 2**50))
    raise errors.InvalidTask(where, "must be text, bytes, {'base64': …} or {'sha256': …} of an uploaded file")


def _required(value: object) -> resources.Resources:
    said = checks.mapping("required_resources", value, most=4)
    for name in said:
        if name not in _RESOURCES:
            raise errors.InvalidTask(f"required_resources.{name[:40]}", f"is none of {', '.join(_RESOURCES)}")
    amounts = {name: checks.amount(f"required_resources.{name}", number) for name, number in said.items()}
    return resources.Resources(
        amounts.get("cpu_cores", 0.0),
        int(amounts.get("memory_gb", 0) * units.GIB),
        int(amounts.get("disk_gb", 0) * units.GIB),
        checks.whole("required_resources.gpus", said.get("gpus", 0), 0, 1_024),
    )


def _network(value: object) -> plan.Network:
    try:
        return plan.Network(str(value))
    except ValueError:
        raise errors.InvalidTask("network", f"{str(value)[:40]!r} is not one of none, egress") from None


def _bytes(name: str, minimum: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        amount = resources.parse_bytes(name, value)
        if amount < minimum:
            raise errors.InvalidTask(name, f"must be at least {minimum} bytes, not {amount}")
        return amount

    return read


def _whole(name: str, minimum: int, maximum: int) -> Callable[[object], int]:
    return lambda value: checks.whole(name, value, minimum, maximum)


_READERS: Mapping[str, tuple[str, Callable[[object], object]]] = {
    "id": ("id", names.task_id),
    "docker_image": ("docker_image", names.image),
    "requirements": ("requirements", lambda value: names.requirements("requirements", value)),
    "args": ("args", lambda value: checks.words("args", value)),
    "input_files": ("input_files", _input_files),
    "environment": ("environment", names.environment),
    "secrets": ("secrets", names.secrets),
    "memory_limit": ("memory_limit", _bytes("memory_limit", 6 * units.MIB)),  # the engine refuses less
    "cpu_quota": ("cpu_quota", _whole("cpu_quota", 1_000, 2**40)),  # the kernel refuses quotas below 1 ms
    "timeout": ("timeout", lambda value: checks.seconds("timeout", value)),
    "disk_limit": ("disk_limit", _bytes("disk_limit", units.MIB)),
    "pids_limit": ("pids_limit", _whole("pids_limit", 1, 2**22)),  # the kernel's own PID_MAX_LIMIT
    "required_resources": ("required", _required),
    "network": ("network", _network),
    "priority": ("priority", _whole("priority", -1_000, 1_000)),
    "max_attempts": ("max_attempts", _whole("max_attempts", 1, 100)),
    "labels": ("labels", lambda value: names.labels("labels", value)),
    "node_selector": ("node_selector", lambda value: names.labels("node_selector", value)),
}
"""The fields that any kind of task may have: the attribute that each becomes, and what checks it, in this order."""


def stored_artifact(stored: StoredFile) -> outcome.Artifact:
    """Return the artifact that a stored input file names; its size is -1 where the submitter did not say."""
    return outcome.Artifact(stored.sha256, stored.size)
