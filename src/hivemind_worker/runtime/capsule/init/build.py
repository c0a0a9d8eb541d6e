"""Builds hivemind-init and hivemind-probe for every machine: static, small, the same bytes from the same sources.

`python build.py` writes the binaries and `bin/SOURCES`, which says from what they were made; `python build.py --check`
builds anew elsewhere and fails if the result differs from what is checked in.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Final

HERE: Final = pathlib.Path(__file__).resolve().parent
TARGETS: Final = {"x86_64": "x86_64-linux-musl", "aarch64": "aarch64-linux-musl"}
MAX_BYTES: Final = 100 * 1000
PROGRAMS: Final = {"hivemind-init": "source", "hivemind-probe": "probe"}
"""Where the sources of each program are."""

FLAGS: Final = [
    *["-std=c11", "-D_GNU_SOURCE", "-Os", "-static", "-s", "-g0", "-Wall", "-Wextra", "-Wshadow", "-Werror"],
    # No names of tools, dates, unwind tables or random ids: the same bytes everywhere.
    *["-fno-ident", "-fno-asynchronous-unwind-tables", "-Wl,--build-id=none", "-Wdate-time"],
    *["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"],
    # zig traps undefined behaviour unless told otherwise; the tests look for it with gcc, which says where it is.
    "-fno-sanitize=all",
]


def sources(program: str = "hivemind-init") -> list[pathlib.Path]:
    """The C files and headers of a program, in a fixed order."""
    return sorted((HERE / PROGRAMS[program]).glob("*.[ch]"))


def source_digest() -> str:
    """SHA-256 over names and bytes of the sources and over the compiler's flags."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in (path for program in PROGRAMS for path in sources(program)):
        content = path.read_bytes()
        digest.update(f"\n{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def build(machine: str, output: pathlib.Path, program: str = "hivemind-init") -> None:
    """Compile a program for `machine` into `output`.

    Raises:
        subprocess.CalledProcessError: the compiler found fault; its words are on stderr.
        ValueError: the result is larger than it may be.
    """
    names = [path.name for path in sources(program) if path.suffix == ".c"]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", TARGETS[machine], *FLAGS, "-o", str(output), *names]
    # Relative names from inside the folder, and nothing from the caller's environment: no path gets into the binary.
    environment = {key: value for key, value in os.environ.items() if key in {"PATH", "HOME", "ZIG_GLOBAL_CACHE_DIR"}}
    subprocess.run(command, cwd=HERE / PROGRAMS[program], env=environment, check=True)
    size = output.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(
            f"{output.name} has {size} bytes, at most {MAX_BYTES} are allowed: find out what was pulled in"
        )


def build_all(folder: pathlib.Path) -> dict[str, str]:
    """Build every target into `folder`; return file name → SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for program, machine in itertools.product(PROGRAMS, TARGETS):
        output = folder / f"{program}-{machine}"
        build(machine, output, program)
        output.chmod(0o755)
        digests[output.name] = hashlib.sha256(output.read_bytes()).hexdigest()
    return digests


def record(digests: dict[str, str]) -> str:
    """The text of bin/SOURCES: what the binaries are and what they were made from."""
    lines = [f"{digest}  {name}" for name, digest in sorted(digests.items())]
    return "\n".join([*lines, f"{source_digest()}  source", f"ziglang {importlib.metadata.version('ziglang')}", ""])


def main(arguments: list[str]) -> int:
    """Build, or with --check compare. Returns the exit code."""
    recorded = HERE / "bin" / "SOURCES"
    if arguments == ["--check"]:
        with tempfile.TemporaryDirectory() as folder:
            same = record(build_all(pathlib.Path(folder))) == recorded.read_text()
        print("binaries and sources agree" if same else "binaries differ from their sources: run `make init`")
        return 0 if same else 1
    digests = build_all(HERE / "bin")
    recorded.write_text(record(digests))
    print(recorded.read_text(), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
