"""What an engine may have although nobody knows: names that it was told to make or remove, its answer lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class Unsure:
    """Names of containers and volumes, until it is certain that they are in somebody's hands or gone.

    An engine that hangs goes on later with what it was told: what it then makes belongs to nobody. ``refusals`` are
    the errors that say that it did nothing. Names of what never came stay: one for each answer that was lost.
    """

    def __init__(self, refusals: type[Exception]) -> None:
        self._refusals = refusals
        self.names: set[str] = set()
        """Names, or ids where a removal was asked for by id."""

    @contextlib.contextmanager
    def making(self, name: str) -> Iterator[None]:
        """Have the engine make it within this block: an end without an error puts it into the caller's hands.

        Meanwhile it is in those of the block, however long the engine takes: a sweep must not remove it.
        """
        was_unsure = name in self.names
        self.names.discard(name)
        try:
            yield
        except self._refusals:
            if was_unsure:
                self.names.add(name)
            raise
        except BaseException:
            self.names.add(name)
            raise

    @contextlib.contextmanager
    def removing(self, name: str) -> Iterator[None]:
        """Have the engine remove it within this block. An end without an error says nothing of what it makes later."""
        try:
            yield
        except BaseException:
            self.names.add(name)
            raise
