"""Images: looked up, pulled once for all who wait, and refused in words when they cannot be had."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import posixpath
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from hivemind_worker import errors
from hivemind_worker.concurrency import sharing
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import (
    hardening,
    image_access,
    ledger,
    own_image,
    pulled,
    pulling,
    references,
    registry_digest,
)
from hivemind_worker.settings import schema

REGISTRY_SECONDS: Final = 30.0
"""Longest that a registry may take to say what a name of its is."""

REMEMBERED: Final = 100
"""References that the pool is told of: at 100 bytes each a poll stays small."""


class Images:
    """The images of one engine, for tasks. `ensure` may be called for the same image many times at once.

    What it pulls is written down in `ours`: only that may ever be removed again; and in `pulled`: that may be run, as
    may what the `rules` list. Everything else that lies at the engine is its owner's.
    """

    def __init__(
        self,
        *,
        engine: engines.Engine,
        policy: schema.PullPolicy = schema.PullPolicy.IF_MISSING,
        terms: pulling.Terms | None = None,
        ours: ledger.Ledger | None = None,
        access: pulled.Access | None = None,
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._pulling = pulling.Pulling(engine=engine, terms=terms or pulling.Terms())
        self._ours = ours
        access = access or pulled.Access()
        self._rules, self._pulled = access.rules, access.pulled
        self._pulls: sharing.Shared[str] = sharing.Shared("pulls")
        self._machine = ""
        self._present: dict[str, None] = {}

    @property
    def present(self) -> tuple[str, ...]:
        """The references last asked for and found here, at most `REMEMBERED`, the last one at the end."""
        return tuple(self._present)

    async def ensure(self, reference: str, tell: sharing.Tell) -> hardening.Image:
        """Return the image, pulled first where the policy says so; `tell` is told how far that is.

        One pull serves all who wait for it; when the last has gone it is ended. What is returned names the image by its
        id, which no tag can move. Raises ImageUnavailable with the cause, EngineLost.
        """
        if reference == own_image.REFERENCE:
            return await own_image.ensure(self._engine)
        try:
            name = references.parse(reference)
        except errors.InvalidTask as error:
            raise errors.ImageUnavailable(f"image {error.problem}") from error
        self._present.pop(reference, None)
        try:
            local = await self._local(name)
        except engines.Refused as refused:
            raise errors.ImageUnavailable(f"image {reference}: {refused.said}") from refused
        if local is not None and not self._may_run(name, local):
            lies_here = local
            found = await self._pulls.get(f"{name} for tasks", lambda say: self._prove(name, lies_here, say), tell)
            return await self._have(reference, await self._engine.image(found))
        if local is None or self._policy is schema.PullPolicy.ALWAYS:
            if self._policy is schema.PullPolicy.NEVER:
                said = f"image {reference} is not on this node, and its owner allows no pulling (pull_policy)"
                raise errors.ImageUnavailable(said)
            local = await self._engine.image(
                await self._pulls.get(str(name), lambda say: self._pull(reference, name, say), tell)
            )
        return await self._have(reference, local)

    async def close(self) -> None:
        """End the pulls that are under way."""
        await self._pulls.close()

    async def _have(self, reference: str, found: Mapping[str, Any]) -> hardening.Image:
        image = _image(reference, found, await self._here())
        self._present[reference] = None
        if self._ours is not None:
            self._ours.used(reference)
        while len(self._present) > REMEMBERED:
            del self._present[next(iter(self._present))]
        return image

    async def _local(self, name: references.Reference) -> Mapping[str, Any] | None:
        """What the engine has under that very name; an engine looks for ids as well, and those name nothing here."""
        try:
            found = await self._engine.image(str(name))
        except engines.NotThere:
            return None
        return found if str(name) in _names(found) else None

    def _may_run(self, name: references.Reference, local: Mapping[str, Any]) -> bool:
        image_id, names = str(local["Id"]), _names(local)
        if self._rules.lists(name, image_id, [each for each in names if "@" in each]):
            return True
        pull = self._pulled.get(str(name))
        if pull is None or (pull.login and not self._rules.may_login(name.registry)):
            return False
        if pull.image_id:
            return pull.image_id == image_id
        # Its end was not written down: this process, or one before it, was killed meanwhile.
        return image_id not in pull.before and any(each.startswith(f"{name.name}@") for each in names)

    async def _here(self) -> str:
        """What machine the engine runs on."""
        if not self._machine:
            self._machine = _machine(str((await self._engine.info()).get("Architecture", "")))
        return self._machine

    async def _pull(self, reference: str, name: references.Reference, say: sharing.Tell) -> str:
        """Pull what is not here, or not any more; the id of what came."""
        before = await self._id(name)
        after = await self._fetch(name, name, say)
        try:
            _image(reference, await self._engine.image(after), await self._here())
        except errors.ImageUnavailable:
            if not before:
                await self._engine.remove_image(str(name))  # of no use to anyone here
            raise
        if self._ours is not None:
            known = self._ours.get(reference)
            if not before or (known is not None and known.image_id == before):  # else it is the owner's
                self._ours.note(reference, after)
                if before not in {"", after}:
                    self._ours.note(before, before)  # the older one has lost its name, and is still ours
        return after

    async def _prove(self, name: references.Reference, local: Mapping[str, Any], say: sharing.Tell) -> str:
        """Have for tasks what bears a name that an image of the owner's has here; the id of what may be run.

        The registry decides: where it gives everybody what lies here, that is no secret. Where it has something else,
        that is fetched beside it, by its digest: the owner's image keeps its name.
        """
        if self._policy is schema.PullPolicy.NEVER:
            raise errors.ImageUnavailable(image_access.refusal(name, "pulling is not allowed (pull_policy)"))
        if why := self._rules.pull_refusal(name):
            raise errors.ImageUnavailable(image_access.refusal(name, why))
        pull = self._pulled.get(str(name))
        image_id = str(local["Id"])
        if pull is not None and pull.image_id == pulled.REFUSED and image_id in pull.before:
            raise errors.ImageUnavailable(image_access.refusal(name, _LAY_HERE))
        credentials = await self._credentials(name)
        try:
            async with asyncio.timeout(REGISTRY_SECONDS):
                digest = await registry_digest.ask(self._engine, str(name), credentials)
        except TimeoutError as error:
            why = f"its registry did not answer within {REGISTRY_SECONDS:.0f} s"
            raise errors.ImageUnavailable(image_access.refusal(name, why)) from error
        except engines.Refused as refused:
            why = f"its registry does not give it to everybody: {refused.said.strip()[:300]}"
            raise errors.ImageUnavailable(image_access.refusal(name, why)) from refused
        if name.pinned(digest) in _names(local):
            self._pulled.end(str(name), image_id, login=bool(credentials))
            return image_id
        say(f"{name} on this node is not what its registry has")
        return await self._fetch(name, dataclasses.replace(name, tag="", digest=digest), say)

    async def _fetch(self, name: references.Reference, exact: references.Reference, say: sharing.Tell) -> str:
        """Pull, and return the id of what came, which is new here or is known to be for tasks.

        A registry may name any image by its id without having a byte of it: the engine then takes the one that it has.
        """
        if why := self._rules.pull_refusal(name):
            raise errors.ImageUnavailable(why)
        credentials = await self._credentials(name)
        login = bool(credentials)
        for_tasks, earlier = self._pulled.ids(), self._pulled.get(str(exact))
        before = {str(image["Id"]) for image in await self._engine.images(bases=True)}
        named = await self._id(exact)
        self._pulled.begin(str(exact), before, login=login)
        try:
            digest = await self._pulling.pull(str(exact), say, credentials)
        except BaseException:
            if earlier is not None:
                self._pulled.restore(earlier)
            raise
        came = dataclasses.replace(exact, tag="", digest=digest) if digest else exact
        found = await self._engine.image(str(came))
        image_id, names = str(found["Id"]), _names(found)
        listed = self._rules.lists(name, image_id, [each for each in names if "@" in each])
        if image_id in before and image_id not in for_tasks and not listed:
            self._pulled.refuse(str(exact), before)
            if not named and names - {str(exact), str(came)}:
                await self._engine.remove_image(str(exact))  # the name alone: it has others
            raise errors.ImageUnavailable(image_access.refusal(name, _LAY_HERE))
        self._pulled.end(str(exact), image_id, login=login)
        return image_id

    async def _credentials(self, name: references.Reference) -> str:
        return await self._pulling.header(str(name)) if self._rules.may_login(name.registry) else ""

    async def _id(self, name: references.Reference) -> str:
        found = await self._local(name)
        return "" if found is None else str(found["Id"])


_LAY_HERE: Final = "what its registry names is an image that lay here before"


def _names(found: Mapping[str, Any]) -> frozenset[str]:
    """All names of an image in full; what is no name of a repository is left out."""
    names = set[str]()
    for text in (*(found.get("RepoTags") or ()), *(found.get("RepoDigests") or ())):
        with contextlib.suppress(errors.InvalidTask):  # <none>:<none>
            names.add(str(references.parse(str(text))))
    return frozenset(names)


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
        name=reference,
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
    own = [digest for name, _, digest in digests if _same_repository(name, reference)]
    return (own or [digest for _, _, digest in digests] or [str(found["Id"])])[0]


def _same_repository(name: str, reference: str) -> bool:
    try:
        return references.parse(name).name == references.parse(reference).name
    except errors.InvalidTask:
        return False


def _machine(name: str) -> str:
    """One name for each sort of machine, whether an engine or an image says it."""
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "i386": "386"}.get(name, name)
