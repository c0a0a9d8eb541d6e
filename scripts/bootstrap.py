"""Make `.tools` (uv, pinned) and `.venv` (the lock file) from a bare Python 3.11: quick when nothing changed.

Usage: python3 scripts/bootstrap.py [run|dev|bench|fuzz]

`run` installs what the product needs, `dev` adds the checks and tests, `bench` adds the peers it is measured against,
`fuzz` the fuzzer. Nothing already there is removed, so they may be asked for in any order. Index, proxy and CA
settings are the user's own, from the environment and from pip's configuration.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import system_packages

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
UV = TOOLS / "bin" / "uv"
VENV = ROOT / ".venv"
UV_VERSION = "0.13.9"  # the version that wrote uv.lock
LEVELS = {
    "run": ["--no-default-groups"],
    "dev": ["--group", "dev"],
    "bench": ["--group", "dev", "--group", "bench"],
    "fuzz": ["--group", "dev", "--group", "fuzz"],
}
OLDEST = (3, 11)
NO_VENV = "Python cannot make virtual environments: install its venv module (Debian: python3-venv), then try again"


def main(arguments: list[str]) -> int:
    """Bring the environment to the level asked for; 0 when it is there."""
    level = arguments[0] if arguments else "dev"
    if level not in LEVELS:
        print(f"unknown level {level!r}: one of {', '.join(LEVELS)}", file=sys.stderr)
        return 2
    if sys.version_info < OLDEST:
        print(
            f"Python {sys.version.split()[0]} is too old: 3.11 or newer is needed (make PYTHON=python3.11 …)",
            file=sys.stderr,
        )
        return 1
    stamp = VENV / f".made-{level}"
    fingerprint = _fingerprint(level)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == fingerprint:
        return 0
    print(f"== setting up .venv ({level})", flush=True)
    _make_uv()
    if _sync_with_uv(level) != 0:
        print("== uv could not fetch the packages; trying pip, with pip's own configuration", flush=True)
        _sync_with_pip(level)
    stamp.write_text(fingerprint, encoding="utf-8")
    if level == "dev" and sys.stdout.isatty():
        print("== done: `source .venv/bin/activate` puts hivemind into your path; docs/tutorial.md goes on from there")
    return 0


def _fingerprint(level: str) -> str:
    digest = hashlib.sha256(f"{level} {sys.version} {UV_VERSION} {VENV}".encode())
    for name in ("pyproject.toml", "uv.lock"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def _make_uv() -> None:
    stamp = TOOLS / ".made"
    if UV.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == UV_VERSION:
        return
    if not _make_venv(TOOLS):
        # Debian splits the venv module off its Python.
        system_packages.install(
            {f"/usr/share/doc/python{_short()}-venv": f"python{_short()}-venv"}, "making environments"
        )
        if not _make_venv(TOOLS):
            sys.exit(NO_VENV)
    pip: list[str | Path] = [TOOLS / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, "install", f"uv=={UV_VERSION}"], check=False).returncode != 0:
        sys.exit("pip could not fetch uv: see above, and check pip's index, proxy and certificate settings")
    stamp.write_text(UV_VERSION, encoding="utf-8")


def _short() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _make_venv(where: Path) -> bool:
    shutil.rmtree(where, ignore_errors=True)
    made = subprocess.run(
        [sys.executable, "-m", "venv", where], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    return made.returncode == 0


def _uv_environment() -> dict[str, str]:
    # Use the Python at hand, never fetch another; work in our own .venv, whatever the shell has active.
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_PROJECT_ENVIRONMENT": str(VENV)}
    environment.pop("VIRTUAL_ENV", None)
    if "PIP_CERT" in environment:
        environment.setdefault("SSL_CERT_FILE", environment["PIP_CERT"])
    return environment


def _sync_with_uv(level: str) -> int:
    # --inexact: a smaller level asked for later must not take away what a larger one installed.
    command: list[str | Path] = [
        UV,
        "sync",
        "--frozen",
        "--inexact",
        "--quiet",
        "--python",
        sys.executable,
        *LEVELS[level],
    ]
    return subprocess.run(command, cwd=ROOT, env=_uv_environment(), check=False).returncode


def _sync_with_pip(level: str) -> None:
    """Install the same packages by the same hashes through pip: at some sites only pip knows the way to the index."""
    if not (VENV / "bin" / "python").exists() and not _make_venv(VENV):
        sys.exit(NO_VENV)
    pinned = VENV / "requirements.txt"
    command: list[str | Path] = [
        UV,
        "export",
        "--frozen",
        "--quiet",
        "--no-emit-project",
        "--output-file",
        pinned,
        *LEVELS[level],
    ]
    subprocess.run(command, cwd=ROOT, env=_uv_environment(), check=True, stdout=subprocess.DEVNULL)
    # pip may be absent from an environment that uv began; the one in .tools can install into another interpreter's.
    pip: list[str | Path] = [
        TOOLS / "bin" / "python",
        "-m",
        "pip",
        "--python",
        VENV / "bin" / "python",
        "install",
        "--quiet",
    ]
    subprocess.run([*pip, "--require-hashes", "-r", pinned], check=True)
    subprocess.run([*pip, "--no-deps", "--editable", ROOT], check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
