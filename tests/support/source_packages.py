"""Published source packages, for the files that their own tests are fed with: fetched by pip, run by nobody."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

_BUILD_TOOLS = ("setuptools>=77", "pybind11")
"""What the packages name to be built with: pip asks them for their metadata before it hands them out."""


def unpack(requirement: str, folder: Path) -> Path:
    """Fetch the source package of ``requirement`` (name==version) into ``folder``; return its unpacked folder."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pip: list[str | Path] = [folder / "venv" / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "install", *_BUILD_TOOLS], check=True)
    asked: list[str | Path] = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "-d", folder, requirement]
    subprocess.run([*pip, "download", *asked], check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")
