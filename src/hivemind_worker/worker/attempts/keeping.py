"""Which stored files are still needed here: inputs while a task may read them, results until the pool has them."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Collection, Hashable, Iterable

from hivemind_worker.artifacts import store
from hivemind_worker.tasks import outcome
from hivemind_worker.telemetry import logs

log = logs.StructuredLogger(__name__)

Identity = tuple[int, int]
"""Inode and time of its last change: the same content stored again is another file. An inode alone is given anew."""


class Keeping:
    """Counts who needs each artifact of ``files`` and removes those that nobody needs any more.

    Several attempts may hold the same content. One that still runs may have stored it already and says so a moment
    later: what nobody needs waits until all have ended that ran when it came to that.

    What an attempt has stored is needed until it ends, and then by whoever has named it with ``need``: an end that
    names nothing (cancelled, dropped, failed) leaves nothing behind.

    A disk that removes nothing, full or broken, harms no attempt: it is tried again at the next end, and at a start.
    """

    def __init__(self, files: store.Store) -> None:
        self._files = files
        self._needed: collections.Counter[str] = collections.Counter()
        self._known: dict[str, Identity] = {}
        self._running: set[Hashable] = set()
        self._stored: dict[Hashable, set[outcome.Artifact]] = {}
        self._waiting: dict[str, tuple[Identity, set[Hashable]]] = {}
        self._unremoved: dict[str, Identity] = {}

    @property
    def needed(self) -> frozenset[str]:
        """The sums of what somebody needs, or may have stored for somebody who still runs."""
        return frozenset(self._needed) | frozenset(self._waiting)

    def begin(self, who: Hashable) -> None:
        """Take note that an attempt runs, which may store results."""
        self._running.add(who)

    def stored(self, who: Hashable, artifacts: Iterable[outcome.Artifact]) -> None:
        """Take note that an attempt that runs has stored these, perhaps in the place of the same content."""
        own = self._stored.setdefault(who, set())
        for artifact in artifacts:
            if artifact in own:
                self._look(artifact.sha256)
            else:
                own.add(artifact)
                self.need([artifact])

    def end(self, who: Hashable) -> None:
        """Take note that it has ended, and has named its results with ``need``. Removes what waited for it alone.

        Blocks for as long as the unlinks take.
        """
        self._running.discard(who)
        unremoved, self._unremoved = self._unremoved, {}
        for sha256, identity in unremoved.items():
            self._remove(sha256, identity)
        self.done(self._stored.pop(who, ()))
        for sha256, (identity, runs) in list(self._waiting.items()):
            runs.discard(who)
            if not runs:
                del self._waiting[sha256]
                self._remove(sha256, identity)

    def let_go(self, staged_names: Collection[str]) -> None:
        """Remove half-written files that the checkpoints of an attempt named, which has ended now. Blocks.

        It may not have come to them: where its capsule was gone, or the engine did not answer.
        """
        try:
            self._files.let_go(staged_names)
        except OSError as error:
            log.log_system_event("leftover_not_removed", {"why": str(error)}, level="warning")

    def need(self, artifacts: Iterable[outcome.Artifact]) -> None:
        """Count one more need of each."""
        for artifact in artifacts:
            self._needed[artifact.sha256] += 1
            self._look(artifact.sha256)

    def arrived(self, artifact: outcome.Artifact) -> None:
        """Take note that a needed artifact is in the store now."""
        self._look(artifact.sha256)

    def done(self, artifacts: Iterable[outcome.Artifact]) -> None:
        """Count one need less of each, and remove what nobody needs. Blocks for as long as an unlink takes."""
        for artifact in artifacts:
            self._needed[artifact.sha256] -= 1
            if self._needed[artifact.sha256] <= 0:
                del self._needed[artifact.sha256]
                identity = self._known.pop(artifact.sha256, None)
                if identity is not None and self._running:
                    self._waiting[artifact.sha256] = (identity, set(self._running))
                elif identity is not None:
                    self._remove(artifact.sha256, identity)

    def _remove(self, sha256: str, identity: Identity) -> None:
        if sha256 not in self._needed and identity == self._identity(sha256):
            try:
                self._files.remove(sha256)
            except OSError as error:
                log.log_system_event("leftover_not_removed", {"why": str(error)}, level="warning")
                self._unremoved[sha256] = identity

    def _look(self, sha256: str) -> None:
        if (identity := self._identity(sha256)) is not None:
            self._known[sha256] = identity

    def _identity(self, sha256: str) -> Identity | None:
        with contextlib.suppress(OSError):
            found = self._files.path(sha256).stat()
            return found.st_ino, found.st_ctime_ns
        return None
