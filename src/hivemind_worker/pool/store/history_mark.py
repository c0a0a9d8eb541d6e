"""A small file beside the store that says how far its history had come: an older copy put in its place is seen.

The store has a generation that grows while attempts are assigned; the mark is written after it. So after a crash or a
power cut at any moment the mark is at most as new as the store, and a mark that is newer says that the store is not the
one that was here. Called by `sqlite`. Blocks.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from hivemind_worker.filesystem import private_file
from hivemind_worker.pool.store import database, schema, snapshot
from hivemind_worker.telemetry import logs

REASON = "put back by hand"

log = logs.StructuredLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of a store's history."""

    epoch: str
    generation: int


def path_of(store: Path) -> Path:
    """Return where the mark of a store is."""
    return store.with_name(f"{store.name}.mark")


def read(store: Path) -> Mark | None:
    """Return a store's mark; ``None`` where there is none, or none that can be read: then nothing is known."""
    try:
        fields = json.loads(path_of(store).read_text(encoding="ascii"))
        return Mark(str(fields["epoch"]), int(fields["generation"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(store: Path, mark: Mark) -> None:
    """Replace a store's mark, durably. The store's own generation must be durable already. Raises OSError."""
    target = path_of(store)
    new = target.with_name(f"{target.name}.new")
    with private_file.open_binary(new, "wb") as file:
        file.write(json.dumps(asdict(mark)).encode())
        file.flush()
        os.fsync(file.fileno())
    new.replace(target)


def remove(store: Path) -> None:
    """Forget the mark: another store is put in this one's place on purpose, with an epoch of its own."""
    path_of(store).unlink(missing_ok=True)


def is_newer(mark: Mark, epochs: tuple[str, ...], generation: int) -> bool:
    """Whether a mark is of a moment that a store with these epochs, oldest first, has not lived through. Pure."""
    if mark.epoch not in epochs:
        return True
    return mark.epoch == epochs[-1] and mark.generation > generation


def check(store: Path, now: float) -> None:
    """Renew the epoch of a store that is older than its mark, as a restore does. Nobody else may have it open.

    Raises :class:`errors.BadSettings` where it cannot be written.
    """
    mark = read(store)
    if mark is None or not store.exists():
        return
    try:
        with contextlib.closing(database.reading(store)) as sql:
            if not schema.has_generation(sql):
                return
            epochs, generation = schema.epochs(sql), schema.generation(sql)
    except database.Error:
        return  # whoever opens it to write says why that cannot be
    if is_newer(mark, epochs, generation):
        epoch = snapshot.renew(store, now, REASON)
        details = {"path": str(store), "epoch": epoch, "generation": generation, "newest": mark.generation}
        log.log_system_event("store_put_back", details, level="warning")
