"""Which names of result files can be downloaded: the pool sets the others aside, the client fetches none of them. Pure.

The same for all platforms; what one file system alone cannot have is looked at where the file is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hivemind_worker.tasks import names

DEPTH: Final = 256
"""Deepest name, in parts, as the capsule lets them out."""


def problem(name: str) -> str:
    """Return why a name cannot be that of a result file, empty where it can."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "name: not UTF-8"
    parts = name.split("/")
    checks = (
        (not name, "name: it is empty"),
        (size > names.PATH_BYTES, f"name: longer than {names.PATH_BYTES} bytes"),
        ("\0" in name, "name: it holds a NUL character"),
        (name.startswith("/"), "name: it is absolute"),
        (".." in parts, "name: it holds a '..' part"),
        ("" in parts or "." in parts, "name: it holds an empty or '.' part"),
        (len(parts) > DEPTH, f"name: it is deeper than {DEPTH} parts"),
        (
            size > names.PART_BYTES and any(len(part.encode()) > names.PART_BYTES for part in parts),
            f"name: a part is longer than {names.PART_BYTES} bytes",
        ),
    )
    return next((why for wrong, why in checks if wrong), "")


def problems(given: Sequence[str]) -> dict[int, str]:
    """Return why names cannot stand beside the others, by their places; those that can are left out.

    Of two that are the same the first stays, and of a file and names beneath it the file. Names that differ in case or
    in their Unicode form are different: many file systems have both.
    """
    bad = {at: why for at, name in enumerate(given) if (why := problem(name))}
    # Sorted so, whatever is beneath a file follows right behind it: no folder needs remembering.
    order = sorted((at for at in range(len(given)) if at not in bad), key=lambda at: given[at].replace("/", "\0"))
    file: str | None = None
    for at in order:
        if given[at] == file:
            bad[at] = "name: another file has it"
        elif file is not None and given[at].startswith(f"{file}/"):
            bad[at] = "name: it is a file and a folder at once"
        else:
            file = given[at]
    return bad
