"""Settings of what a worker sees to beside its tasks: images, packages, monitoring, cleaning up."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import ByteSize, Field

from hivemind_worker.settings.fields import (
    LIVE,
    Address,
    Amount,
    Group,
    ImagePatterns,
    Names,
    Percent,
    Place,
    Registries,
    Seconds,
    Size,
    Url,
)
from hivemind_worker.settings.fields import Images as References
from hivemind_worker.units import GIB


class Images(Group):
    """How images come to this machine, and which of them tasks may run."""

    allowed_images: ImagePatterns = ()
    """Images on this machine that tasks may run although none of them fetched it: names, patterns such as team/* (**
    for any depth; without a tag all tags), or digests. default_image and preload_images are always among them."""

    image_registries: Registries = ("public",)
    """Registries that tasks may pull from without credentials, as hosts. public: every one whose name is of the
    internet; those of a private network are to be named."""

    registry_logins: Registries = ()
    """Registries at which tasks may use this owner's credentials (docker_config): every image that these open."""

    preload_images: References = Field((), json_schema_extra=LIVE)
    """Images to have ready before a task asks for them, parted by commas. What the pool announces is added."""

    preload_announced: bool = Field(default=True, json_schema_extra=LIVE)
    """Whether the images that the pool announces are fetched ahead as well."""

    pull_timeout: Seconds = 3600.0
    """Longest that one pull may take. A pull has its own clock: the task's time limit begins when the task does."""

    pull_stall_seconds: Seconds = 60.0
    """A pull of which nothing has arrived for so long is ended and tried again."""

    docker_config: Place = Field(Path("~/.docker"), json_schema_extra={"plain": "DOCKER_CONFIG"})
    """The folder with config.json, from which credentials for the registries of registry_logins are read (`docker
    login` writes them)."""


class Packages(Group):
    """Where the packages of a task's requirements come from. Never said by a task."""

    prefix: ClassVar[str] = "package_"

    index_url: Url = Field("", json_schema_extra={"plain": "PIP_INDEX_URL"})
    """The package index to install from. When unset, PyPI."""

    proxy: Url = Field("", json_schema_extra={"plain": "HTTPS_PROXY"})
    """The proxy through which the index is reached."""

    ca_file: Place | None = Field(None, json_schema_extra={"plain": "SSL_CERT_FILE"})
    """Certificates (PEM) to trust when installing, where this site signs TLS anew. Added to the usual ones."""

    wheels: Place | None = None
    """A folder of wheels on this machine that are offered beside the index."""

    source_builds: bool = False
    """Whether packages without a wheel may be built from source, each in a capsule of its own, without a network."""

    environment_timeout: Seconds = 1800.0
    """Longest that making one environment may take; the task's own time limit begins afterwards."""

    environment_limit_bytes: Size = ByteSize(10 * GIB)
    """How large one environment may be."""

    refresh_days: Amount = 7.0
    """After so many days names without an exact version are resolved anew; 0: never."""


class Monitoring(Group):
    """When this machine counts as busy with other things, or as not fit."""

    monitor_interval: Seconds = 5.0
    """Seconds from one reading of the machine to the next."""

    resource_wait_seconds: Seconds = Field(300.0, json_schema_extra=LIVE)
    """Seconds for which a task waits for room on this node; then it is handed back, with the reason."""

    overload_cpu_percent: Percent = Field(90.0, json_schema_extra=LIVE)
    """CPU use of everything that is no task of ours above which no further task is taken."""

    overload_memory_percent: Percent = Field(90.0, json_schema_extra=LIVE)
    """Memory use of the whole machine above which no further task is taken."""

    unhealthy_cpu_percent: Percent = Field(95.0, json_schema_extra=LIVE)
    """CPU use of everything that is no task of ours above which the node counts as not healthy."""

    unhealthy_memory_percent: Percent = Field(95.0, json_schema_extra=LIVE)
    """Memory use above which the node counts as not healthy."""

    unhealthy_disk_percent: Percent = Field(90.0, json_schema_extra=LIVE)
    """Use above which a disk makes the node not healthy, so that it takes no task: that of work_dir, of state_dir or
    of temp_dir."""

    health_probe_seconds: Seconds = 5.0
    """Longest that one health check may take; then it counts as failed."""

    defence_interval: Seconds = Field(3600.0, json_schema_extra=LIVE)
    """Seconds from one trial of what fences tasks to the next. One that is missing is tried again each minute, and the
    node takes no task until it holds."""

    accept_missing_defences: Names = Field((), json_schema_extra=LIVE)
    """Ids of defences, parted by commas, without which this node takes tasks nevertheless, as `hivemind doctor --json`
    names them. Only where all tasks are your own."""

    http_listen: Address = "127.0.0.1:0"
    """Where the worker answers /livez, /readyz, /healthz and /metrics, and shows its window to this machine's browsers;
    port 0 takes a free one, `hivemind health` finds it."""

    http_enabled: bool = True
    """Whether it answers there at all."""

    http_hosts: Names = ()
    """Names of this machine, parted by commas, by which it may be asked over HTTP; addresses, localhost and its own
    host name always may."""


class Cleanup(Group):
    """When this machine is tidied, and what is kept. Only what is ours is ever removed."""

    cleanup_enabled: bool = True
    """Whether anything is removed at all; `hivemind clean --dry-run` tells what would be."""

    cleanup_interval: Seconds = 300.0
    """Seconds from one round of cleaning to the next."""

    cleanup_disk_percent: Percent = Field(85.0, json_schema_extra=LIVE)
    """Disk use above which images, environments and caches go, least recently used first, until it is below."""

    cleanup_memory_percent: Percent = 80.0
    """Memory use above which what is kept in memory for speed is let go."""

    cleanup_days: Amount = Field(7.0, json_schema_extra=LIVE)
    """Days after which files of ended tasks, logs and unused environments go, however much room there is."""

    keep_images: References = Field((), json_schema_extra=LIVE)
    """Images that are never removed, parted by commas; those to be preloaded never are."""
