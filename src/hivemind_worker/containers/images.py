"""Images: looked up, pulled once for all who wait, and refused in words when they cannot be had."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from hivemind_worker.concurrency import supervision
from hivemind_worker.containers import engine as engines
from hivemind_worker.containers import hardening, ledger
from hivemind_worker.settings import schema
from hivemind_worker.task import errors

PULL_SECONDS: Final = 1800.0
"""The longest that one pull may take: 10 GB at 50 Mbit/s."""

REMEMBERED: Final = 100
"""References that the pool is told of: at 100 bytes each a poll stays small."""

_PAUSES: Final = (1.0, 4.0)  # seconds before the second and the third, last try

# What registries and engines say when another try cannot help.
_FINAL_WORDS: Final = (
    "not found", "manifest unknown", "does not exist", "access denied", "unauthorized", "authentication required",
    "no matching manifest", "invalid reference", "name unknown", "denied:",
)  # fmt: skip


class Images:
    """The images of one engine. `ensure` may be called for the same image many times at once.

    What it pulls is written down in `ours`: only that may ever be removed again.
    """

    def __init__(
        self,
        *,
        engine: engines.Engine,
        jobs: supervision.Jobs,
        policy: schema.PullPolicy = schema.PullPolicy.IF_MISSING,
        pull_seconds: float = PULL_SECONDS,
        ours: ledger.Ledger | None = None,
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._policy = policy
        self._pull_seconds = pull_seconds
        self._ours = ours
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._present: dict[str, None] = {}

    @property
    def present(self) -> tuple[str, ...]:
        """The references last asked for and found here, at most `REMEMBERED`, the last one at the end."""
        return tuple(self._present)

    async def ensure(self, reference: str) -> hardening.Image:
        """Return the image, pulled first where the policy says so. Raises ImageUnavailable with the cause, EngineLost.

        Who stops waiting does not end a pull that others wait for; it goes on for the next who asks.
        """
        if self._policy is not schema.PullPolicy.ALWAYS:
            try:
                return await self._look(reference)
            except engines.NotThere as absent:
                if self._policy is schema.PullPolicy.NEVER:
                    said = f"image {reference} is not on this node, and its owner allows no pulling (pull_policy)"
                    raise errors.ImageUnavailable(said) from absent
            except engines.Refused as refused:
                raise errors.ImageUnavailable(f"image {reference}: {refused.said}") from refused
        pull = self._pulls.get(reference)
        if pull is None:
            pull = self._jobs.start(f"pull {reference}", self._pull(reference))
            self._pulls[reference] = pull
            pull.add_done_callback(lambda _: self._pulls.pop(reference, None))
        await asyncio.shield(pull)
        return await self._look(reference)

    async def _look(self, reference: str) -> hardening.Image:
        self._present.pop(reference, None)
        found = _image(reference, await self._engine.image(reference))
        self._present[reference] = None
        if self._ours is not None:
            self._ours.used(reference)
        while len(self._present) > REMEMBERED:
            del self._present[next(iter(self._present))]
        return found

    async def _pull(self, reference: str) -> None:
        before = await self._id(reference)
        await self._fetch(reference)
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

    async def _fetch(self, reference: str) -> None:
        for pause in (*_PAUSES, None):
            try:
                async with asyncio.timeout(self._pull_seconds):
                    async for _ in self._engine.pull(reference):
                        pass  # progress is told by a later issue
            except engines.Refused as refused:
                final = any(word in refused.said.lower() for word in _FINAL_WORDS)
                if final or pause is None:
                    raise errors.ImageUnavailable(f"image {reference} cannot be pulled: {refused.said}") from refused
            except TimeoutError as error:
                said = f"image {reference} was not pulled within {self._pull_seconds:.0f} s"
                raise errors.ImageUnavailable(said) from error
            else:
                return
            await asyncio.sleep(pause)


def _image(reference: str, found: Mapping[str, Any]) -> hardening.Image:
    if found.get("Os", "linux") != "linux":
        raise errors.ImageUnavailable(f"image {reference} is for {found['Os']}; tasks run on Linux")
    config = found.get("Config") or {}
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    digests = found.get("RepoDigests") or ()
    return hardening.Image(
        id=found["Id"],
        # A registry's digest where it came from one; the id is the same kind of sum over a locally built image.
        digest=digests[0].rpartition("@")[2] if digests else found["Id"],
        machine=found.get("Architecture", ""),
        environment={name: value for name, _, value in pairs},
        volumes=tuple(config.get("Volumes") or ()),
    )
