"""Images: looked up, pulled once for all who wait, and refused in words when they cannot be had."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from hivemind_worker.concurrency import sharing
from hivemind_worker.containers import engine as engines
from hivemind_worker.containers import hardening, ledger, own_image, pulling, references
from hivemind_worker.settings import schema
from hivemind_worker.task import errors

REMEMBERED: Final = 100
"""References that the pool is told of: at 100 bytes each a poll stays small."""


class Images:
    """The images of one engine. `ensure` may be called for the same image many times at once.

    What it pulls is written down in `ours`: only that may ever be removed again.
    """

    def __init__(
        self,
        *,
        engine: engines.Engine,
        policy: schema.PullPolicy = schema.PullPolicy.IF_MISSING,
        terms: pulling.Terms | None = None,
        ours: ledger.Ledger | None = None,
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._pulling = pulling.Pulling(engine=engine, terms=terms or pulling.Terms())
        self._ours = ours
        self._pulls: sharing.Shared[None] = sharing.Shared("pulls")
        self._machine = ""
        self._present: dict[str, None] = {}

    @property
    def present(self) -> tuple[str, ...]:
        """The references last asked for and found here, at most `REMEMBERED`, the last one at the end."""
        return tuple(self._present)

    async def ensure(self, reference: str, tell: sharing.Tell) -> hardening.Image:
        """Return the image, pulled first where the policy says so; `tell` is told how far that is.

        One pull serves all who wait for it; when the last has gone it is ended. Raises ImageUnavailable with the cause,
        EngineLost.
        """
        if reference == own_image.REFERENCE:
            return await own_image.ensure(self._engine)
        if self._policy is not schema.PullPolicy.ALWAYS:
            try:
                return await self._look(reference)
            except engines.NotThere as absent:
                if self._policy is schema.PullPolicy.NEVER:
                    said = f"image {reference} is not on this node, and its owner allows no pulling (pull_policy)"
                    raise errors.ImageUnavailable(said) from absent
            except engines.Refused as refused:
                raise errors.ImageUnavailable(f"image {reference}: {refused.said}") from refused
        await self._pulls.get(reference, lambda say: self._pull(reference, say), tell)
        return await self._look(reference)

    async def close(self) -> None:
        """End the pulls that are under way."""
        await self._pulls.close()

    async def _look(self, reference: str) -> hardening.Image:
        self._present.pop(reference, None)
        found = _image(reference, await self._engine.image(reference), await self._here())
        self._present[reference] = None
        if self._ours is not None:
            self._ours.used(reference)
        while len(self._present) > REMEMBERED:
            del self._present[next(iter(self._present))]
        return found

    async def _here(self) -> str:
        """What machine the engine runs on."""
        if not self._machine:
            self._machine = _machine(str((await self._engine.info()).get("Architecture", "")))
        return self._machine

    async def _pull(self, reference: str, say: sharing.Tell) -> None:
        before = await self._id(reference)
        await self._pulling.pull(reference, say)
        try:
            _image(reference, await self._engine.image(reference), await self._here())
        except errors.ImageUnavailable:
            if not before:
                await self._engine.remove_image(reference)  # of no use to anyone here
            raise
        if self._ours is not None:
            known = self._ours.get(reference)
            if not before or (known is not None and known.image_id == before):  # else it is the owner's
                after = await self._id(reference)
                self._ours.note(reference, after)
                if before not in {"", after}:
                    self._ours.note(before, before)  # the older one has lost its name, and is still ours

    async def _id(self, reference: str) -> str:
        try:
            return str((await self._engine.image(reference))["Id"])
        except engines.NotThere:
            return ""


def _image(reference: str, found: Mapping[str, Any], here: str) -> hardening.Image:
    """What is needed of it. Raises ImageUnavailable when it is made for another machine than `here`."""
    system, machine = found.get("Os") or "linux", _machine(found.get("Architecture") or here)
    if (system, machine) != ("linux", here):
        raise errors.ImageUnavailable(
            f"image {reference} is for {system}/{machine}, and this node runs linux/{here}: name one made for that"
        )
    config = found.get("Config") or {}
    return hardening.Image(
        id=found["Id"],
        digest=_digest(reference, found),
        machine=machine,
        environment=_environment(reference, config.get("Env") or ()),
        volumes=_volumes(reference, config.get("Volumes") or ()),
    )


def _environment(reference: str, entries: Sequence[str]) -> dict[str, str]:
    """Return an image's variables. Raises ImageUnavailable where it is not clear which those are."""
    pairs = [entry.partition("=") for entry in entries]
    names = [name for name, _, _ in pairs]
    if wrong := sorted(name for name, sign, _ in pairs if not (name and sign) or names.count(name) > 1):
        raise errors.ImageUnavailable(
            f"image {reference} sets variables without a name, without a value or twice ({', '.join(wrong)[:100]!r}): "
            "name another image"
        )
    return {name: value for name, _, value in pairs}


def _volumes(reference: str, declared: Collection[str]) -> tuple[str, ...]:
    """Return the folders that an image declares as volumes, as the engine reads them.

    Raises ImageUnavailable for one that we cannot cover: the engine would put a folder of the host's disk there,
    without a cap, and in the place of what every capsule needs.
    """
    volumes = tuple(f"/{posixpath.normpath(path).lstrip('/')}" for path in declared)
    if relative := sorted(path for path in declared if not path.startswith("/")):
        raise errors.ImageUnavailable(f"image {reference} declares VOLUME {relative[0][:100]!r}, which is no full path")
    if taken := sorted(hardening.NO_VOLUMES & set(volumes)):
        raise errors.ImageUnavailable(
            f"image {reference} declares VOLUME {' '.join(taken)}, where every container needs what the engine puts "
            "there: name another image, or have this one made without that line"
        )
    return volumes


def _digest(reference: str, found: Mapping[str, Any]) -> str:
    """The digest of the registry it was asked of; the id, the same kind of sum, where it came from none."""
    digests = [str(each).partition("@") for each in found.get("RepoDigests") or ()]
    repository, _ = references.split(reference)
    own = [digest for name, _, digest in digests if name == repository]
    return (own or [digest for _, _, digest in digests] or [str(found["Id"])])[0]


def _machine(name: str) -> str:
    """One name for each sort of machine, whether an engine or an image says it."""
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "i386": "386"}.get(name, name)
