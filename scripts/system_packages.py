"""What the operating system must have: says it loudly, and installs it where that is ours to do (root on Debian)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

# Where the programs of Debian's administrators live; a plain user's PATH may lack them.
ADMIN_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def program(name: str) -> str | None:
    """The path of a program, also looked for where administrators' programs live."""
    return shutil.which(name, path=ADMIN_PATH)


def may_install() -> bool:
    """Whether we are root on a Debian (or a child of it), where apt-get may be asked."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists() and program("apt-get") is not None


def install(wanted: dict[str, str], why: str) -> list[str]:
    """Install each missing program's package.

    Args:
        wanted: program (or absolute file path) → Debian package.
        why: one phrase for the person who reads along.

    Returns:
        The programs that are still missing.
    """
    missing = {name: package for name, package in wanted.items() if not _present(name)}
    if not missing:
        return []
    packages = sorted(set(missing.values()))
    if not may_install():
        print(f"!! missing for {why}: {', '.join(missing)}. Install the packages {' '.join(packages)}.", flush=True)
        return sorted(missing)
    print(f"== installing {' '.join(packages)} with apt-get, for {why}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "--yes", "--no-install-recommends", "-qq", *packages]
    if _run(command, environment) != 0:
        # An image freshly unpacked has no package lists: fetch them, then ask once more.
        _run(["apt-get", "update", "-qq"], environment)
        _run(command, environment)
    return sorted(name for name in missing if not _present(name))


def _present(name: str) -> bool:
    return Path(name).exists() if name.startswith("/") else program(name) is not None


def _run(command: list[str], environment: dict[str, str]) -> int:
    # dpkg's report of each unpacked file helps nobody here; what goes wrong comes on stderr.
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False
    ).returncode
