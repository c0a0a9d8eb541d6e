"""The two files of an image that the engine opens, as root and without a deadline, when it starts a container."""

from __future__ import annotations

import base64
import binascii
import collections
import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from hivemind_worker import errors
from hivemind_worker.runtime.docker import hardening

FILES: Final = ("/etc/passwd", "/etc/group")
MOST_BYTES: Final = 4 << 20
"""A large directory service exports some 20,000 users in that; the engine reads each line."""

REMEMBERED: Final = 1000
"""Images that were found to be in order: an image never changes."""

_HEADER: Final = "X-Docker-Container-Path-Stat"
_LINK: Final = 1 << 27
_KINDS: Final = {1 << 31: "a folder", 1 << 25: "a named pipe", 1 << 26: "a device", 1 << 24: "a socket", 1 << 19: "odd"}
"""Bits of the modes that an engine tells (Go's), for all that is no ordinary file."""


class Engine(Protocol):
    """What is asked of `engine.Engine`."""

    async def look_at(self, container: str, path: str) -> Mapping[str, str] | None:
        """What it says of a path in a container, as headers; None where there is no such path."""


class UserFiles:
    """Looks at them, once for each image, by a call that opens neither.

    A named pipe in the place of one holds the start for ever, and the container with it, which then can neither be
    inspected nor removed; a device is opened by the engine with all that this does to the machine.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._in_order: collections.OrderedDict[str, None] = collections.OrderedDict()

    async def check(self, container: str, image_id: str, image: hardening.Image | None) -> None:
        """Raise ImageUnavailable where one is no ordinary file; EngineLost, engine.Refused."""
        if image_id in self._in_order:
            return
        for path in FILES:
            if wrong := await self._wrong(container, path):
                name = image.name if image is not None and image.name else image_id
                raise errors.ImageUnavailable(
                    f"image {name} cannot be started: its {path} is {wrong}, and the engine would wait for it or open "
                    "it: name another image, or have this one made with an ordinary file there, or none"
                )
        if image_id:
            self._in_order[image_id] = None
        while len(self._in_order) > REMEMBERED:
            self._in_order.popitem(last=False)

    async def _wrong(self, container: str, path: str) -> str:
        """Say what is wrong with a path; empty where the engine may open it."""
        found = await self._stat(container, path)
        if found is None:
            return ""
        mode = int(found.get("mode", 0))
        if mode & _LINK:
            # The engine has followed it to its end, within the image: what is still a link there leads nowhere.
            found = await self._stat(container, str(found.get("linkTarget") or "/"))
            if found is None:
                return ""
            mode = int(found.get("mode", 0))
        if mode & _LINK:
            return "a link without an end"
        kind = next((word for bit, word in _KINDS.items() if mode & bit), "")
        return kind or ("too large" if int(found.get("size", 0)) > MOST_BYTES else "")

    async def _stat(self, container: str, path: str) -> Mapping[str, Any] | None:
        headers = await self._engine.look_at(container, path)
        if headers is None:
            return None
        try:
            found: Mapping[str, Any] = json.loads(base64.b64decode(headers[_HEADER]))
        except (KeyError, ValueError, binascii.Error) as error:
            raise errors.NodeFault(f"the container engine did not say what {path} of a container is") from error
        return found
