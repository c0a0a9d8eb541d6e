"""Images and environments at the engine: which are ours, which somebody uses, and what each alone takes up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import hardening, ledger
from hivemind_worker.worker.housekeeping import disks, policy


class Images:
    """The place of images at one engine. Opens and closes its own line to the engine with every look.

    ``ours`` tells which are ours: no other is removed, whoever uses it. ``pinned`` tells the references that the owner
    wants to keep.
    """

    name = "images"

    def __init__(self, engine: engines.Engine, ours: ledger.Ledger, pinned: Callable[[], Collection[str]]) -> None:
        self._engine = engine
        self._ours = ours
        self._pinned = pinned

    async def look(self) -> Sequence[policy.Thing]:
        """Tell of every image the engine has, the owner's too, so that it can be said why they stay."""
        await self._engine.connect()
        try:
            known = {image["Id"]: image for image in await self._engine.images()}
            sizes = await self._engine.image_sizes()
            users = _users(await self._engine.containers())
            disk = await disks.of_engine(self._engine)
            records = await self._true_records(known)
        finally:
            await self._engine.close()
        pinned = {_full(reference) for reference in self._pinned()}
        things = []
        for record in records:
            image = known.get(record.image_id, {})
            others = _names(image) - {_full(each.name) for each in records}
            kind = policy.Kind.ENVIRONMENT if record.kind is ledger.Kind.ENVIRONMENT else policy.Kind.IMAGE
            held = _held(record, pinned=pinned, users=users, known=known, others=others)
            size = sizes.get(record.image_id, 0)
            packages = str((image.get("Labels") or {}).get(hardening.CONTENTS_LABEL, "")).splitlines()
            things.append(
                policy.Thing(
                    kind=kind,
                    name=record.name,
                    size_bytes=size,
                    last_used=record.last_used,
                    disk=disk,
                    held=held,
                    contents=tuple(packages),
                )
            )
        mine = {record.image_id for record in records}
        for each, image in known.items():
            if each not in mine:
                called = min(_names(image)) if _names(image) else each
                things.append(_owners(called, sizes.get(each, 0), float(image.get("Created", 0)), disk))
        return things

    async def remove(self, thing: policy.Thing) -> bool:
        """Take our name off the image; false when somebody has begun to use it."""
        record = await asyncio.to_thread(self._ours.get, thing.name)
        if record is None or record.last_used > thing.last_used:
            return False
        await self._engine.connect()
        try:
            if await self._id(thing.name) != record.image_id:
                return False
            # By name: an image goes only with its last one, and the engine refuses while a container uses it.
            removed = await self._engine.remove_image(thing.name)
        finally:
            await self._engine.close()
        if removed:
            await asyncio.to_thread(self._ours.forget, thing.name)
        return removed

    async def _true_records(self, known: Collection[str]) -> list[ledger.Record]:
        """The records, once they say what is so: somebody else may have removed an image, or given away its name."""
        records = await asyncio.to_thread(self._ours.records)
        for record in records:
            if await self._id(record.name) != record.image_id:
                await asyncio.to_thread(self._ours.forget, record.name)
                if record.image_id in known:  # what we fetched is still there, under no name of ours
                    await asyncio.to_thread(self._ours.note, record.image_id, record.image_id, record.kind)
        return await asyncio.to_thread(self._ours.records)

    async def _id(self, name: str) -> str:
        try:
            return str((await self._engine.image(name))["Id"])
        except engines.NotThere:
            return ""


def _users(containers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Image id → the name of a container that was made of it, running or not, whoever it belongs to."""
    return {each["ImageID"]: str((each.get("Names") or ["?"])[0]).lstrip("/") for each in containers}


def _held(
    record: ledger.Record,
    *,
    pinned: Collection[str],
    users: Mapping[str, str],
    known: Mapping[str, Mapping[str, Any]],
    others: Collection[str],
) -> str:
    """Why an image of ours must stay; empty where it may go."""
    made_of_it = sum(image.get("ParentId") == record.image_id for image in known.values())
    if _full(record.name) in pinned:
        return "pinned (keep_images, preload_images)"
    if record.image_id in users:
        return f"in use by container {users[record.image_id]}"
    if made_of_it:
        return f"{made_of_it} other image{'s are' if made_of_it > 1 else ' is'} made of it"
    if others:
        return f"its owner calls it {min(others)}"
    return ""


def _owners(called: str, size: int, created: float, disk: str) -> policy.Thing:
    held = "not ours: this worker has not fetched it"
    return policy.Thing(kind=policy.Kind.IMAGE, name=called, size_bytes=size, last_used=created, disk=disk, held=held)


def _names(image: Mapping[str, Any]) -> set[str]:
    return {_full(tag) for tag in image.get("RepoTags") or () if tag != "<none>:<none>"}


def _full(reference: str) -> str:
    """A reference as the engine lists it: without the registry that is meant anyway, with the tag that is."""
    if reference.startswith("sha256:"):
        return reference
    for usual in ("docker.io/library/", "docker.io/", "index.docker.io/library/", "index.docker.io/"):
        if reference.startswith(usual):
            reference = reference.removeprefix(usual)
            break
    reference = reference.removeprefix("library/")
    return reference if "@" in reference or ":" in reference.rpartition("/")[2] else f"{reference}:latest"
