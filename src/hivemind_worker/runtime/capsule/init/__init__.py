"""The small static programs that run inside capsules, as first process and as probe: where their built binaries are."""

from __future__ import annotations

import hashlib
import pathlib
from typing import Final

_BINARIES: Final = pathlib.Path(__file__).parent / "bin"
_MACHINES: Final = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


def binary_path(machine: str, program: str = "hivemind-init") -> pathlib.Path:
    """Where a program for `machine` is: a name as `uname -m` or Docker gives it (x86_64, amd64, aarch64, arm64).

    Raises:
        LookupError: there is none for that machine.
    """
    try:
        name = _MACHINES[machine.lower()]
    except KeyError:
        known = ", ".join(_MACHINES)
        raise LookupError(f"{program} is not built for '{machine}'; it is for {known}") from None
    return _BINARIES / f"{program}-{name}"


def sha256(machine: str) -> str:
    """The hex digest of the program for `machine`, read from the file itself. Raises as `binary_path`, or OSError."""
    return hashlib.sha256(binary_path(machine).read_bytes()).hexdigest()
