"""Small C libraries that are preloaded into a process under test: compiled where there is a compiler."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent


def build(name: str, folder: Path) -> Path:
    """Compile one of them into ``folder``. Raises CalledProcessError, FileNotFoundError without a compiler."""
    target = folder / f"{name}.so"
    command = ["gcc", "-O1", "-shared", "-fPIC", "-o", str(target), str(HERE / f"{name}.c"), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, capture_output=True)
    return target


def set_clock(path: Path, seconds: float) -> None:
    """Have the wall clock of the processes that read this file be off by so much, from now on."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(struct.pack("=q", int(seconds * 1e9)))


def environment(libraries: Mapping[str, Path]) -> Mapping[str, str]:
    """What makes a process load them."""
    return {"LD_PRELOAD": " ".join(str(path) for path in libraries.values())} if libraries else {}
