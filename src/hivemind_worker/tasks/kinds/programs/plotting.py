"""matplotlib made ready for a program in a capsule: a cache that can be written, no noise, no formulas in names."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import given


def load() -> Any:
    """Import matplotlib and return it. Its cache goes beside the program's own files: the home folder is read-only."""
    folder = Path(given.PRIVATE, "matplotlib").resolve()
    folder.mkdir(exist_ok=True)
    os.environ.setdefault("MPLCONFIGDIR", str(folder))  # read by the import
    # That its font cache takes a moment on a slow machine does not concern the submitter.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    import matplotlib as mpl  # noqa: PLC0415  (reads the variable when imported)

    return mpl
