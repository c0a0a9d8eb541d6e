"""Which folders of this machine the unprivileged user that sandboxes are made under can reach."""

from __future__ import annotations

import stat
from pathlib import Path


def closed_to_others(folder: Path) -> Path | None:
    """The first folder on the way, or itself, that only its owner or group may pass."""
    whole = folder.resolve()
    way = (*reversed(whole.parents), whole)
    return next((each for each in way if not each.stat().st_mode & stat.S_IXOTH), None)
