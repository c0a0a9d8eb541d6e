"""What this worker has pulled for tasks, by name: a file each, so that it is known after a restart.

It says what tasks may run, not what may be removed: an image that its owner had pulled as well stays the owner's. A
file that is lost costs another pull, never more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from hivemind_worker.filesystem import private_dir, private_file
from hivemind_worker.runtime.docker import image_access
from hivemind_worker.settings import upkeep
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)

REFUSED = "refused"
"""Instead of an image's id: what came was an image that lay here before and is not for tasks."""


@dataclass(frozen=True, slots=True)
class Pull:
    """One pull. ``image_id`` is empty until it has ended; ``before``: ids of the images that the engine had."""

    name: str
    image_id: str
    login: bool
    before: frozenset[str]


class Pulled:
    """The pulls in one folder, made when first needed; in memory alone without one. Calls block for a small file.

    Nothing here raises for a disk that is full or broken: a log line says so, and the image is pulled again.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: dict[str, Pull] = {}

    def begin(self, name: str, before: Collection[str], *, login: bool) -> None:
        """Write down, before the engine is asked, what it has: a kill in between leaves no doubt about what came."""
        self._write(Pull(name, "", login, frozenset(before)))

    def end(self, name: str, image_id: str, *, login: bool) -> None:
        """Write down what came."""
        self._write(Pull(name, image_id, login, frozenset()))

    def restore(self, pull: Pull) -> None:
        """Take back `begin`: nothing came."""
        self._write(pull)

    def refuse(self, name: str, before: Collection[str]) -> None:
        """Write down that what came is not for tasks."""
        self._write(Pull(name, REFUSED, login=False, before=frozenset(before)))

    def get(self, name: str) -> Pull | None:
        """The last pull of that name."""
        if name not in self._known and self._folder is not None:
            found = _read(self._path(self._folder, name))
            if found is not None and found.name == name:
                self._known[name] = found
        return self._known.get(name)

    def ids(self) -> frozenset[str]:
        """The ids of all images that were pulled without credentials."""
        if self._folder is not None:
            for path in self._folder.glob("*.json"):
                if (found := _read(path)) is not None:
                    self._known.setdefault(found.name, found)
        ids = {pull.image_id for pull in self._known.values() if not pull.login}
        return frozenset(ids - {"", REFUSED})

    def _write(self, pull: Pull) -> None:
        self._known[pull.name] = pull
        if self._folder is None:
            return
        fields = {"name": pull.name, "image_id": pull.image_id, "login": pull.login, "before": sorted(pull.before)}
        fresh = self._folder / f"{uuid.uuid4().hex}.new"
        try:
            private_dir.make_enterable(self._folder.parent)
            private_dir.make(self._folder)
            private_file.write(fresh, json.dumps(fields))
            fresh.replace(self._path(self._folder, pull.name))
        except (OSError, private_dir.NotPrivate) as error:
            log.log_system_event("pull_not_noted", {"image": pull.name}, level="warning", error=error)
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)

    @staticmethod
    def _path(folder: Path, name: str) -> Path:
        return folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


@dataclass(frozen=True, slots=True)
class Access:
    """What tasks may run: what the owner's rules list, and what was pulled for tasks."""

    rules: image_access.Rules = field(default_factory=image_access.Rules)
    pulled: Pulled = field(default_factory=lambda: Pulled(None))


def access(settings: upkeep.Images, default_image: str, cache: Path) -> Access:
    """Return what is in force by the settings; pulls are written down beneath the folder ``cache``."""
    return Access(image_access.of(settings, default_image), Pulled(cache / "pulled"))


def _read(path: Path) -> Pull | None:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        before = frozenset(str(image_id) for image_id in fields["before"])
        return Pull(str(fields["name"]), str(fields["image_id"]), bool(fields["login"]), before)
    except (OSError, ValueError, KeyError, TypeError):
        return None
