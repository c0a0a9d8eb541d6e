"""Requirements → an image that has them: found by its labels, else made once by uv in a throw-away container.

The image is committed from that container, whose base, Python and exact versions are its key. Nobody writes a
Dockerfile, no shell reads a word of a task, and the run itself has no network.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import platform
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import uv

from hivemind_worker.concurrency import sharing, stopping, supervision
from hivemind_worker.containers import engine as engines
from hivemind_worker.containers import hardening, ledger, stocked
from hivemind_worker.supplies import answers as answering
from hivemind_worker.supplies import making
from hivemind_worker.supplies import sources as sourcing
from hivemind_worker.task import errors

REPOSITORY: Final = "hivemind-environment"
"""What the images are called, with the beginning of their key as tag."""

CACHE_VOLUME: Final = "hivemind-packages"
"""Packages that were fetched, for the next environment: one volume for all nodes of an engine."""

CACHE_ROLE: Final = "packages"
TOOLS_ROLE: Final = "tools"
WHEELS_ROLE: Final = "wheels"
"""What volumes of environments are for, as their label says."""

WATCH_SECONDS: Final = 5.0
_TAG: Final = 24
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NO_PYTHON: Final = ("executable file not found", "no such file or directory")


class Environments:
    """The environments of one engine. `ensure` may be called for the same one many times at once."""

    def __init__(
        self,
        *,
        engine: engines.Engine,
        jobs: supervision.Jobs,
        around: hardening.Surroundings,
        sources: sourcing.Sources,
        answers: answering.Answers,
        ours: ledger.Ledger | None,
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._around = around
        self._sources = sources
        self._answers = answers
        self._ours = ours
        self._stocked = stocked.Stocked(engine=engine, node_id=around.node_id, boot_id=around.boot_id)
        self._builds: sharing.Shared[_There] = sharing.Shared("environments")
        self._few = asyncio.Semaphore(making.AT_ONCE)

    async def ensure(
        self, image: hardening.Image, requirements: tuple[str, ...], tell: sharing.Tell
    ) -> hardening.Image:
        """Return the image with these packages, made first unless it is there; `tell` is told how far that is.

        Raises DependencyFailed with the resolver's words, EngineLost, engine.Refused, BadSettings.
        """
        wheels = await asyncio.to_thread(self._sources.wheel_files)
        offered = await asyncio.to_thread(self._sources.offered, wheels)
        asked = sourcing.asked_key(image.id, requirements, offered, making.recipe())
        found, fresh = await self._known(asked, requirements)
        if found is None or not fresh:
            try:
                found = await self._builds.get(
                    asked, lambda say: self._build(image, requirements, asked, wheels, say), tell
                )
            except errors.DependencyFailed as failed:
                if found is None:
                    raise
                tell(making.stale(failed))
        await asyncio.to_thread(self._note, found)
        path = image.environment.get("PATH") or _PATH
        variables = {"PATH": f"{making.ENVIRONMENT}/bin:{path}", "VIRTUAL_ENV": making.ENVIRONMENT}
        return dataclasses.replace(image, id=found.id, environment={**image.environment, **variables})

    async def close(self) -> None:
        """End the builds that are under way; their containers are removed by the jobs."""
        await self._builds.close()

    async def _known(self, asked: str, requirements: tuple[str, ...]) -> tuple[_There | None, bool]:
        """An image that answers what is asked, and whether its names were resolved lately enough."""
        noted = await asyncio.to_thread(self._answers.get, asked)
        if noted is not None:
            for found in await self._engine.images(f"{hardening.ENVIRONMENT_LABEL}={noted.key}"):
                return _there(found), self._sources.fresh(noted.resolved, requirements)
        made = await self._engine.images(f"{hardening.ASKED_LABEL}={asked}")
        for found in sorted(made, key=lambda each: float(each.get("Created") or 0.0), reverse=True):
            return _there(found), self._sources.fresh(float(found.get("Created") or 0.0), requirements)
        return None, False

    def _note(self, found: _There) -> None:
        """Used now; and ours, as its labels say, also where another process of ours has made it."""
        if self._ours is None:
            return
        known = self._ours.get(found.name)
        if known is not None and known.image_id == found.id:
            self._ours.used(found.name)
        else:
            self._ours.note(found.name, found.id, ledger.Kind.ENVIRONMENT)

    async def _build(
        self,
        image: hardening.Image,
        requirements: tuple[str, ...],
        asked: str,
        wheels: tuple[Path, ...],
        say: sharing.Tell,
    ) -> _There:
        say(f"making an environment with {making.listed(requirements)}")
        try:
            async with self._few, asyncio.timeout(self._sources.seconds):
                return await self._made(image, requirements, asked, wheels, say)
        except TimeoutError:
            said = f"the environment was not made within {self._sources.seconds:.0f} s (package_environment_timeout)"
            raise errors.DependencyFailed(said) from None

    async def _made(
        self,
        image: hardening.Image,
        requirements: tuple[str, ...],
        asked: str,
        wheels: tuple[Path, ...],
        say: sharing.Tell,
    ) -> _There:
        volumes = await self._volumes(image, wheels)
        argv = ["python3", "-I", f"{hardening.PROGRAM_FOLDER}/maker.py"]
        body = hardening.builder(self._around, image, argv, volumes)
        name = f"hivemind-builder-{uuid.uuid4().hex[:24]}"
        creating = self._jobs.start(f"create {name}", self._engine.create(name, body))
        stream: engines.Attached | None = None
        try:
            container = await asyncio.shield(creating)
            stream = await self._engine.attach(container)
            await self._start(container, image)
            return await self._converse(container, stream, image, requirements, asked, bool(wheels), say)
        finally:
            self._jobs.start(f"remove {name}", self._remove(name, creating, stream))

    async def _volumes(self, image: hardening.Image, wheels: tuple[Path, ...]) -> dict[str, tuple[str, bool]]:
        if not _runs_here(image.machine):
            raise errors.DependencyFailed(
                f"the image is for {image.machine}, this node's uv for {platform.machine()}: no environment can be made"
            )
        tools = stocked.Stock(TOOLS_ROLE, (("uv", Path(uv.find_uv_bin())), ("maker.py", making.MAKER)), mode=0o555)
        volumes = {await self._stocked.ensure(tools, image): (hardening.PROGRAM_FOLDER, True)}
        if wheels:
            offered = stocked.Stock(WHEELS_ROLE, tuple((path.name, path) for path in wheels))
            volumes[await self._stocked.ensure(offered, image)] = (making.WHEELS, True)
        if not self._sources.source_builds:
            await self._engine.create_volume(CACHE_VOLUME, {hardening.ROLE_LABEL: CACHE_ROLE})
            volumes[CACHE_VOLUME] = (making.CACHE, False)
        return volumes

    async def _start(self, container: str, image: hardening.Image) -> None:
        try:
            await self._engine.start(container)
        except engines.Refused as refused:
            if any(word in refused.said.lower() for word in _NO_PYTHON):
                said = f"the task has requirements, and its image ({image.digest[:19]}…) has no python3 to install for"
                raise errors.DependencyFailed(said) from refused
            raise

    async def _converse(
        self,
        container: str,
        stream: engines.Attached,
        image: hardening.Image,
        requirements: tuple[str, ...],
        asked: str,
        with_wheels: bool,  # noqa: FBT001 - named by its only caller
        say: sharing.Tell,
    ) -> _There:
        found = _Found()

        async def wanted(resolved: making.Resolved) -> bool:
            found.pins = making.asked_first(resolved.pins, requirements)
            found.key = sourcing.environment_key(image.id, resolved.python, resolved.pins, making.recipe())
            there = await self._engine.images(f"{hardening.ENVIRONMENT_LABEL}={found.key}")
            found.there = _there(there[0]) if there else None
            if not there:
                say(f"resolved: {making.listed(resolved.pins)}")
            return not there

        request = making.request(
            self._sources,
            requirements,
            f"{hardening.PROGRAM_FOLDER}/uv",
            inherit=True,
            wheels=making.WHEELS if with_wheels else "",
        )
        watch = asyncio.create_task(self._watch(container), name="watch builder")
        talk = asyncio.create_task(making.converse(stream, request, wanted, say, self._sources), name="talk to builder")
        try:
            await asyncio.wait({talk, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not talk.done():
                await watch  # raises: too large
            made = await talk
        except errors.CapsuleFault as fault:
            raise await self._why(container, stream, fault, found.key) from fault
        finally:
            await stopping.settle(watch, talk)
        there = await self._commit(container, asked, found, say) if made else found.there
        assert there is not None  # not made only because it is there
        await asyncio.to_thread(self._answers.note, asked, found.key)
        return there

    async def _commit(self, container: str, asked: str, found: _Found, say: sharing.Tell) -> _There:
        await self._engine.wait(container, seconds=60.0)
        size = await self._engine.written(container)
        if size > self._sources.limit_bytes:
            raise making.too_large(size, self._sources.limit_bytes)
        labels = {
            hardening.KEEPER_LABEL: self._around.node_id,
            hardening.ROLE_LABEL: "environment",
            hardening.ENVIRONMENT_LABEL: found.key,
            hardening.ASKED_LABEL: asked,
            hardening.CONTENTS_LABEL: "\n".join(found.pins),
            # Taken over from the container, whose they were.
            hardening.NODE_LABEL: "",
            f"{hardening.LABEL}.boot-id": "",
        }
        image = await self._engine.commit(container, REPOSITORY, found.key[:_TAG], labels)
        say(f"the environment is ready: {size / 1e6:.0f} MB")
        return _There(image, f"{REPOSITORY}:{found.key[:_TAG]}")

    async def _watch(self, container: str) -> None:
        """Raise DependencyFailed when it grows beyond what it may have."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            size = await self._engine.written(container)
            if size > self._sources.limit_bytes:
                raise making.too_large(size, self._sources.limit_bytes)

    async def _why(
        self, container: str, stream: engines.Attached, fault: errors.CapsuleFault, key: str
    ) -> errors.HiveMindError:
        """What is known of a builder that broke off: killed for memory, or what its Python complained about."""
        with contextlib.suppress(errors.NodeFault):
            if ((await self._engine.inspect(container)).get("State") or {}).get("OOMKilled"):
                return errors.DependencyFailed("making the environment needs more than 2 GiB of memory")
        words = stream.complaint.decode(errors="replace").strip().splitlines()
        if words and not key:  # its Python does not even begin
            return errors.DependencyFailed(f"the image's python3 cannot make an environment: {words[-1][:300]}")
        return errors.CapsuleFault(f"{fault}{f': {words[-1]}' if words else ''}")

    async def _remove(self, name: str, creating: asyncio.Task[str], stream: engines.Attached | None) -> None:
        if stream is not None:
            await stream.close()
        await asyncio.wait({creating})
        await self._engine.remove(name)


@dataclasses.dataclass(frozen=True, slots=True)
class _There:
    """An image with packages: its id, and the name that the ledger and its owner know it by."""

    id: str
    name: str


@dataclasses.dataclass(slots=True)
class _Found:
    pins: tuple[str, ...] = ()
    key: str = ""
    there: _There | None = None


def _there(listed: Mapping[str, Any]) -> _There:
    return _There(str(listed["Id"]), min(listed.get("RepoTags") or (), default=str(listed["Id"])))


def _runs_here(machine: str) -> bool:
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    here = platform.machine()
    return names.get(machine, machine) == names.get(here, here)
