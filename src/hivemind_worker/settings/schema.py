"""Every setting in its group, frozen, each explained beneath it; those texts are the help and the documentation.

A setting's one name is its environment name without HIVEMIND_, in small letters. That is the field's own name, except
in a group marked with a prefix (`pool.listen` is `pool_listen`, HIVEMIND_POOL_LISTEN). In the TOML file it is the field
in the table of its group. `reference` lists them all; `sources` finds the values.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic import ByteSize, Field

from hivemind_worker.settings import egress as reach
from hivemind_worker.settings import paths, upkeep
from hivemind_worker.settings.fields import (
    LIVE,
    Address,
    Amount,
    Group,
    Image,
    Images,
    Labels,
    Name,
    Place,
    Seconds,
    Size,
    engine,
)
from hivemind_worker.units import GIB, MIB


class PastLease(enum.StrEnum):
    """What a worker does with a task whose lease ran out while the pool could not be reached."""

    FINISH = "finish"
    STOP = "stop"


class Isolation(enum.StrEnum):
    """What fences a task."""

    AUTO = "auto"
    DOCKER = "docker"
    SANDBOX = "sandbox"


class PullPolicy(enum.StrEnum):
    """When an image is fetched from its registry."""

    IF_MISSING = "if-missing"
    ALWAYS = "always"
    NEVER = "never"


class LogFormat(enum.StrEnum):
    """How a log event is written on standard error."""

    AUTO = "auto"
    JSON = "json"
    HUMAN = "human"


class Node(Group):
    """Who this worker is and which pool it works for."""

    node_id: Name = Field("", json_schema_extra={"plain": "NODE_ID"})
    """This node's name at the pool. When unset, one is made once and kept in the state folder."""

    node_pool_address: Address = Field(
        "localhost:50051",
        json_schema_extra={"plain": "NODE_POOL_ADDRESS", "flag": "--node-pool"},
    )
    """Where the Node Pool answers, as host:port."""

    labels: Labels = Field(default_factory=dict, json_schema_extra=LIVE | {"flag": "--label"})
    """Labels that tasks may select this node by, as NAME=VALUE; several in one variable are parted by commas."""

    heartbeat_interval: Annotated[Seconds, Field(le=3600)] = Field(
        30.0, json_schema_extra={"plain": "HEARTBEAT_INTERVAL"}
    )
    """Seconds from one heartbeat to the next. At most half of the pool's lease."""

    poll_wait_seconds: Annotated[Seconds, Field(le=60)] = 30.0
    """Seconds that the pool may hold a request for work open until there is some; at most 60."""

    past_lease: PastLease = PastLease.FINISH
    """What to do with running tasks when the pool was away for longer than the lease: finish them and offer the
    results, or stop them."""


class Limits(Group):
    """How much of this machine tasks may use together, and how much one of them."""

    max_cpu_cores: Amount = Field(0.0, json_schema_extra=LIVE | {"plain": "MAX_CPU_CORES"})
    """CPU cores for all tasks together; 0: all there are."""

    max_memory_gb: Amount = Field(0.0, json_schema_extra=LIVE | {"plain": "MAX_MEMORY_GB"})
    """Memory in GB for all tasks together; 0: all there is."""

    max_disk_gb: Amount = Field(0.0, json_schema_extra=LIVE | {"plain": "MAX_DISK_GB"})
    """Disk in GB for all tasks together; 0: all there is."""

    max_concurrent_tasks: int = Field(1, ge=0, le=10_000, json_schema_extra=LIVE | {"plain": "MAX_CONCURRENT_TASKS"})
    """Tasks at once; 0: as many as fit into the machine."""

    task_timeout: Seconds = Field(3600.0, json_schema_extra=LIVE | {"plain": "TASK_TIMEOUT"})
    """Seconds that a task may run when it names no limit of its own, and the most that any task may."""

    grace_seconds: Amount = Field(10.0, le=600, json_schema_extra=LIVE)
    """Seconds between asking a task to end (SIGTERM) and ending it (SIGKILL)."""

    drain_timeout: Amount = Field(300.0, le=30 * 86400, json_schema_extra=LIVE)
    """Seconds that running tasks get to finish when the worker is asked to stop; then they are handed back."""

    output_head_bytes: Size = Field(ByteSize(512 * 1024), le=64 * MIB, json_schema_extra=LIVE)
    """How much is kept of the beginning of a task's output, both streams together (512 KiB, 1 MiB, …)."""

    output_tail_bytes: Size = Field(ByteSize(512 * 1024), le=64 * MIB, json_schema_extra=LIVE)
    """How much is kept of the end of a task's output, both streams together."""

    results_limit_bytes: Size = Field(ByteSize(4 * GIB), json_schema_extra=LIVE)
    """How large all result files of one task may be together."""

    results_limit_count: int = Field(10_000, gt=0, le=1_000_000, json_schema_extra=LIVE)
    """How many result files one task may have."""

    undelivered_limit_count: int = Field(100, ge=1, le=200)
    """While so many ended tasks wait for the pool to take their ends, no further task is begun."""

    undelivered_limit_bytes: Size = ByteSize(64 * GIB)
    """While so much of result files waits for the pool, no further task is begun; what waits is never thrown away."""


class Docker(Group):
    """How containers are used."""

    docker_enabled: bool = Field(default=True, json_schema_extra={"plain": "DOCKER_ENABLED"})
    """Whether tasks may run in containers of a Docker engine."""

    docker_host: Annotated[str, pydantic.AfterValidator(engine)] = Field("", json_schema_extra={"plain": "DOCKER_HOST"})
    """The engine's address, such as unix:///var/run/docker.sock or tcp://host:2376. When unset, the usual socket."""

    docker_network: Name = Field("hivemind", min_length=1, json_schema_extra={"plain": "DOCKER_NETWORK"})
    """The engine's network for tasks with egress where egress_path is bridge. All others have no network at all."""

    docker_runtime: Name = ""
    """The engine's runtime for tasks, such as runsc for gVisor. When unset, the engine's own default."""

    isolation: Isolation = Isolation.AUTO
    """What fences a task: docker, sandbox (bubblewrap), or auto for a Docker engine where one answers, else the
    sandbox. A task never runs unfenced."""

    allow_egress: bool = False
    """Whether a task that asks for it (`network: egress`) may reach what egress_allow lists."""

    default_image: Image = Field("python:3.11-slim", json_schema_extra=LIVE)
    """The image of a task that names none."""

    pull_policy: PullPolicy = PullPolicy.IF_MISSING
    """When images are fetched: if-missing, always, or never."""

    engine_patience: Seconds = 120.0
    """Seconds for which running tasks are held while the engine does not answer; it is asked again and again, and where
    they still run then they go on. After that they are handed back."""

    @pydantic.model_validator(mode="after")
    def _agree(self) -> Docker:
        if self.isolation is Isolation.DOCKER and not self.docker_enabled:
            raise ValueError("isolation is docker, but docker_enabled is false: change one of the two")
        return self


class Storage(Group):
    """Where things are kept. Folders are made when they are first needed."""

    state_dir: Place = Field(default_factory=paths.state_dir)
    """What must survive a restart: identity, journal, results not yet delivered, the pool's store. For its user alone:
    one that is open to others is closed to them, one that others share or could replace is refused."""

    work_dir: Place = Field(
        default_factory=lambda known: known["state_dir"] / "work", json_schema_extra={"plain": "WORK_DIR"}
    )
    """Artifacts of tasks: inputs fetched and results not yet delivered."""

    temp_dir: Place = Field(Path("/var/tmp"), json_schema_extra={"plain": "TEMP_DIR"})  # noqa: S108  (each folder there is locked and its user's alone)
    """Workspaces of tasks in the sandbox that are too large for memory; each is removed after its task. On a disk, and
    open to enter for every user."""

    cache_dir: Place = Field(default_factory=paths.cache_dir)
    """What can be had again: environments of tasks in the sandbox, and the packages fetched for them. For a worker that
    is root, open to enter for every user."""

    log_dir: Place = Field(default_factory=paths.log_dir, json_schema_extra={"plain": "LOG_DIR"})
    """The rotated log files."""

    scrub_bytes_per_second: Annotated[ByteSize, Field(ge=0)] = ByteSize(4 * MIB)
    """How fast stored files are read again, round after round, to find those that the disk has damaged; such a file is
    set aside and can be uploaded again. 0: never."""


class Pool(Group):
    """The Node Pool, where this machine runs one."""

    prefix: ClassVar[str] = "pool_"

    listen: Address = Field("127.0.0.1:50051", json_schema_extra={"flag": "--listen"})
    """Where the pool listens, as host:port; port 0 takes a free one."""

    store: Place | None = Field(None, json_schema_extra={"flag": "--store"})
    """The pool's database file. When unset, pool.sqlite in the state folder."""

    artifact_dir: Place | None = None
    """Where the pool keeps input and result files. When unset, pool-artifacts in the state folder."""

    artifact_limit_bytes: Size = ByteSize(16 * GIB)
    """How large one uploaded file may be."""

    min_free_bytes: Size = ByteSize(256 * MIB)
    """What must be free on the pool's disks for tasks to be handed out, or a twentieth of a disk where that is less.
    Below it the pool is not ready, says why, and goes on by itself when there is room again."""

    reflection: bool = False
    """Whether the pool describes its calls to whoever asks (gRPC server reflection), for tools such as grpcurl."""

    lease_seconds: Annotated[Seconds, Field(ge=1, le=86400)] = 60.0
    """Seconds without a heartbeat after which a worker's tasks are given to others."""

    max_attempts: int = Field(3, ge=1, le=100, json_schema_extra=LIVE)
    """How often a task is tried, the first time included, when it names no number and its node was at fault."""

    http_listen: Address = "127.0.0.1:0"
    """Where the pool answers /livez, /readyz, /healthz and /metrics; port 0 takes a free one, `hivemind health` finds
    it."""

    http_enabled: bool = True
    """Whether it answers there at all."""

    preload_images: Images = Field((), json_schema_extra=LIVE)
    """Images that every node shall have ready before a task asks for them; nodes learn of them when they register."""


class Security(Group):
    """Who may talk to whom, and how it is kept private."""

    tls_ca_file: Place | None = None
    """Certificates (PEM) that the pool's own must be signed by. When set, the worker and the client use TLS."""

    tls_cert_file: Place | None = None
    """The certificate (PEM, with its chain) that the pool shows. Goes with tls_key_file."""

    tls_key_file: Place | None = None
    """The private key (PEM) of that certificate."""

    insecure: bool = False
    """Allow a connection without TLS to or from other machines. Loopback needs no leave."""

    @pydantic.model_validator(mode="after")
    def _pair(self) -> Security:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together: set both or neither")
        return self


class Logging(Group):
    """What is written about what happens."""

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", json_schema_extra=LIVE)
    """The least important events to write."""

    log_format: LogFormat = LogFormat.AUTO
    """On standard error: json, human, or auto for human lines on a terminal and JSON elsewhere. Files are JSON."""

    log_file_bytes: Size = ByteSize(10 * MIB)
    """The size at which a log file is put aside and a new one begun."""

    log_file_count: int = Field(5, ge=0, le=1000)
    """How many such files are kept beside the current one; 0: no log files at all."""


class Settings(Group):
    """All settings, by group. Made by `sources.load`; `Settings()` is all defaults."""

    node: Node = Field(default_factory=Node)
    limits: Limits = Field(default_factory=Limits)
    docker: Docker = Field(default_factory=Docker)
    storage: Storage = Field(default_factory=Storage)
    pool: Pool = Field(default_factory=Pool)
    security: Security = Field(default_factory=Security)
    logging: Logging = Field(default_factory=Logging)
    images: upkeep.Images = Field(default_factory=upkeep.Images)
    egress: reach.Egress = Field(default_factory=reach.Egress)
    packages: upkeep.Packages = Field(default_factory=upkeep.Packages)
    monitoring: upkeep.Monitoring = Field(default_factory=upkeep.Monitoring)
    cleanup: upkeep.Cleanup = Field(default_factory=upkeep.Cleanup)

    @property
    def pool_store(self) -> Path:
        """The pool's database file, as set or in the state folder."""
        return self.pool.store or self.storage.state_dir / "pool.sqlite"

    @property
    def pool_artifact_dir(self) -> Path:
        """Where the pool keeps files, as set or in the state folder."""
        return self.pool.artifact_dir or self.storage.state_dir / "pool-artifacts"

    @property
    def undelivered_limits(self) -> tuple[int, int]:
        """Bytes of result files, and ends of tasks, that may wait for the pool."""
        return self.limits.undelivered_limit_bytes, self.limits.undelivered_limit_count
