"""The images that tests and demo run, made here without any registry and kept as archives for the next time.

Usage: python3 scripts/test_images.py   (fills the engine of DOCKER_HOST, or of the usual socket)
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import engine_api
import system_packages

BUSYBOX = "hivemind-test/busybox:1"  # /bin/busybox and its links: 2 MB, for all that needs no Python
PYTHON = "hivemind-test/python:2"  # a minimal Debian with its Python, its venv module and certificates
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hivemind-test"
# Rebuilt when the recipe changes: its number is part of the archive's name.
RECIPE = 2
# Documentation, translations and package lists: half of the size, and no test reads them.
UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache/apt", "var/lib/apt/lists")
PULLED = "python:3.11-slim"


def main() -> int:
    """0 when both images are there."""
    engine = engine_api.address()
    if not engine_api.answers(engine):
        print(f"no Docker engine answers at {engine}", file=sys.stderr)
        return 1
    return 0 if fill(engine) else 1


def fill(engine: str) -> bool:
    """Have both images in an engine. False, and said loudly, where they cannot be made."""
    return busybox(engine) and python(engine)


def busybox(engine: str) -> bool:
    """Have the tiny image."""
    if engine_api.has_image(engine, BUSYBOX):
        return True
    if system_packages.install({"/bin/busybox": "busybox-static"}, "the tests' smallest image"):
        return False
    archive = CACHE / f"busybox-{RECIPE}.tar"
    if not archive.exists():
        _stage(archive, _pack_busybox)
    engine_api.import_image(engine, archive, BUSYBOX)
    return True


def python(engine: str, name: str = PYTHON) -> bool:
    """Have the image with Python: built by debootstrap where that is possible, else pulled."""
    if engine_api.has_image(engine, name):
        return True
    archive = CACHE / f"python-{RECIPE}.tar"
    if not archive.exists():
        missing = os.geteuid() != 0 or system_packages.install({"debootstrap": "debootstrap"}, "an image with Python")
        if missing:
            print(f"!! cannot build an image with Python here (root on Debian can): pull {PULLED} and tag it {name}")
            return False
        print("== building an image with Python by debootstrap: about a minute, once", flush=True)
        _stage(archive, _pack_python)
    engine_api.import_image(engine, archive, name)
    return True


def _stage(archive: Path, pack: Callable[[Path], None]) -> None:
    """Write an archive whole or not at all: a broken run must not leave half of one to be found by the next."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        unfinished = Path(scratch) / "archive.tar"
        pack(unfinished)
        unfinished.rename(archive)


def _pack_busybox(archive: Path) -> None:
    program = Path("/bin/busybox")
    listed = subprocess.run([program, "--list"], check=True, capture_output=True, text=True)
    with tarfile.open(archive, "w") as tar:
        for folder in ("bin", "etc", "proc", "sys", "dev", "tmp", "workspace", "run"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        _add(tar, "bin/busybox", program.read_bytes(), 0o755)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644)
        for name in listed.stdout.split():
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _pack_python(archive: Path) -> None:
    root = archive.parent / "root"
    debootstrap = system_packages.program("debootstrap") or "debootstrap"
    command = [
        debootstrap,
        "--variant=minbase",
        "--include=python3,python3-venv,ca-certificates",
        _release(),
        str(root),
        *_mirror(),
    ]
    environment = {**os.environ, "PATH": system_packages.ADMIN_PATH}
    built = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if built.returncode != 0:
        raise SystemExit(f"debootstrap failed:\n{built.stdout[-2000:]}{built.stderr[-2000:]}")
    for unused in UNUSED:
        shutil.rmtree(root / unused, ignore_errors=True)
    # Tasks say `python`, as the official image does; Debian says python3 only.
    (root / "usr/bin/python").symlink_to("python3")
    (root / "workspace").mkdir(exist_ok=True)
    subprocess.run(["tar", "--numeric-owner", "--one-file-system", "-C", root, "-cf", archive, "."], check=True)
    shutil.rmtree(root)


def _release() -> str:
    """This machine's own Debian release: the one whose packages its mirror certainly has."""
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    return "stable"


def _mirror() -> list[str]:
    """The mirror that this machine's own apt uses, so that an install without the public one works too."""
    policy = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True, check=False
    )
    found = [line for line in policy.stdout.splitlines() if line.startswith("http") and "security" not in line]
    return found[:1]


if __name__ == "__main__":
    sys.exit(main())
