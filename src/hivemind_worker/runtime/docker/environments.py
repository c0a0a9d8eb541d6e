"""Requirements → an image that has them: found by its labels, else made once, by nothing that is in the image.

A fetcher of ours resolves and unpacks the packages on the worker's side; the engine puts the files into a container
that is created and never started, and that becomes the image. Of what the image's author wrote only its Python runs,
to say what it is, fenced like a task. The base image is part of the key: it decides about itself alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from hivemind_worker import errors
from hivemind_worker.concurrency import sharing, supervision
from hivemind_worker.runtime.docker import builds, environment_archive, hardening, image_python, ledger
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.environments import answers as answering
from hivemind_worker.runtime.environments import building, making
from hivemind_worker.runtime.environments import sources as sourcing

REPOSITORY: Final = "hivemind-environment"
"""What the images are called, with the beginning of their key as tag."""

FILL_SECONDS: Final = 600.0
"""Longest that the engine may take to unpack one: 10 GB at 17 MB/s, a tenth of what was measured."""

_TAG: Final = 24
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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
        workshop: making.Workshop,
        ours: ledger.Ledger | None,
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._around = around
        self._sources = sources
        self._answers = answers
        self._workshop = workshop
        self._ours = ours
        self._pythons = image_python.ImagePythons(engine=engine, jobs=jobs, around=around)
        self._builds: sharing.Shared[_There] = sharing.Shared("environments")
        self._few = asyncio.Semaphore(making.AT_ONCE)

    async def ensure(
        self, image: hardening.Image, requirements: tuple[str, ...], tell: sharing.Tell
    ) -> hardening.Image:
        """Return the image with these packages, made first unless it is there; `tell` is told how far that is.

        Raises DependencyFailed with the resolver's words, EngineLost, engine.Refused, BadSettings, OSError.
        """
        wheels = await asyncio.to_thread(self._sources.wheel_files)
        offered = await asyncio.to_thread(self._sources.offered, wheels)
        request_key = sourcing.asked_key(image.id, requirements, offered, making.recipe())
        found, fresh = await self._known(request_key, requirements)
        if found is None or not fresh:
            try:
                found = await self._builds.get(
                    request_key, lambda say: self._build(image, requirements, request_key, say), tell
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
        self, image: hardening.Image, requirements: tuple[str, ...], request_key: str, say: sharing.Tell
    ) -> _There:
        say(f"making an environment with {making.listed(requirements)}")
        if (volume := _covered(image.volumes)) is not None:
            raise errors.DependencyFailed(
                f"the image declares a volume at {volume}, where its packages would lie: the image's fault"
            )
        try:
            async with self._few, asyncio.timeout(self._sources.seconds):
                return await self._make(image, requirements, request_key, say)
        except TimeoutError:
            raise making.too_late(self._sources.seconds) from None

    async def _make(
        self,
        image: hardening.Image,
        requirements: tuple[str, ...],
        request_key: str,
        say: sharing.Tell,
        *,
        nested: bool = False,
    ) -> _There:
        """Make one. `nested`: for a build, which takes no builds itself."""

        async def in_capsule(requires: Sequence[str], request: bytes) -> bytes:
            words = tuple(requires)
            offered = await asyncio.to_thread(lambda: self._sources.offered(self._sources.wheel_files()))
            nested_key = sourcing.asked_key(image.id, words, offered, making.recipe())
            there = await self._make(image, words, nested_key, say, nested=True)
            await asyncio.to_thread(self._note, there)  # ours to remove, once it is unused
            inside = dataclasses.replace(image, id=there.id)
            return await builds.run(self._engine, self._jobs, self._around, inside, request)

        build = in_capsule if self._sources.source_builds and not nested else None
        python = await self._pythons.read(image)
        async with self._workshop.open(self._jobs, say) as session:
            resolved = await building.resolve(session, requirements, python, build, say)
            key = sourcing.environment_key(image.id, python.to_text(), resolved.contents, making.recipe())
            if listed := await self._engine.images(f"{hardening.ENVIRONMENT_LABEL}={key}"):
                there = _there(listed[0])
            else:
                say(f"resolved: {making.listed(resolved.pins)}")
                size = await session.install(resolved, python, inherit=True)
                pins = making.requested_first(resolved.pins, requirements)
                there = await self._commit(session, image, {
                    hardening.ENVIRONMENT_LABEL: key,
                    hardening.ASKED_LABEL: request_key,
                    hardening.CONTENTS_LABEL: "\n".join(pins),
                })  # fmt: skip
                say(f"the environment is ready: {size / 1e6:.0f} MB")
        await asyncio.to_thread(self._answers.note, request_key, key)
        return there

    async def _commit(self, session: making.Session, image: hardening.Image, labels: Mapping[str, str]) -> _There:
        """The image, made of a container that never ran."""
        name = f"hivemind-environment-{uuid.uuid4().hex[:24]}"
        body = hardening.filler(self._around, image.id, {})
        creating = self._jobs.start(f"create {name}", self._engine.create(name, body))
        try:
            container = await asyncio.shield(creating)
            packed = environment_archive.pieces(session.staged.environment, PurePosixPath(making.ENVIRONMENT))
            await self._engine.put_archive(container, "/", packed, FILL_SECONDS)
            kept = {
                hardening.KEEPER_LABEL: self._around.node_id,
                hardening.ROLE_LABEL: "environment",
                # Taken over from the container, whose they were.
                hardening.NODE_LABEL: "",
                f"{hardening.LABEL}.boot-id": "",
            }
            tag = labels[hardening.ENVIRONMENT_LABEL][:_TAG]
            made = await self._engine.commit(container, REPOSITORY, tag, {**labels, **kept})
            return _There(made, f"{REPOSITORY}:{tag}")
        finally:
            self._jobs.start(f"remove {name}", self._remove(name, creating))

    async def _remove(self, name: str, creating: asyncio.Task[str]) -> None:
        await asyncio.wait({creating})
        await self._engine.remove(name)


@dataclasses.dataclass(frozen=True, slots=True)
class _There:
    """An image with packages: its id, and the name that the ledger and its owner know it by."""

    id: str
    name: str


def _there(listed: Mapping[str, Any]) -> _There:
    return _There(str(listed["Id"]), min(listed.get("RepoTags") or (), default=str(listed["Id"])))


def _covered(volumes: tuple[str, ...]) -> str | None:
    """A volume that the image declares over the place of environments."""
    places = {making.ENVIRONMENT, *map(str, PurePosixPath(making.ENVIRONMENT).parents)}
    return next((volume for volume in volumes if str(PurePosixPath("/", volume)) in places), None)
