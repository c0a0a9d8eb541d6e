"""Generate the wire's Python from nodepool.proto, or check that what stands in the tree is what it says.

Usage: python scripts/proto.py generate|check
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIRE = ROOT / "src" / "hivemind_worker" / "wire"
GENERATED = WIRE / "generated"
CAPTION = '"""Generated from nodepool.proto by `make proto`; never edited."""\n'
# protoc knows no Python packages: it writes flat imports. The descriptor keeps its plain name, `nodepool.proto`, so
# that code somebody else generates from the same file can live in one process with ours.
FLAT_IMPORTS = {
    "nodepool_pb2_grpc.py": (
        "import nodepool_pb2 as nodepool__pb2",
        "from hivemind_worker.wire.generated import nodepool_pb2 as nodepool__pb2",
    ),
    "nodepool_pb2_grpc.pyi": (
        "import nodepool_pb2 as _nodepool_pb2",
        "from hivemind_worker.wire.generated import nodepool_pb2 as _nodepool_pb2",
    ),
}


def main(arguments: list[str]) -> int:
    """Generate into the tree, or compare with it; 1 when they differ."""
    if arguments not in (["generate"], ["check"]):
        print(__doc__, file=sys.stderr)
        return 2
    fresh = generate()
    if arguments == ["generate"]:
        GENERATED.mkdir(exist_ok=True)
        for name, text in fresh.items():
            (GENERATED / name).write_text(text, encoding="utf-8")
        return 0
    stale = [name for name, text in fresh.items() if not _stands(GENERATED / name, text)]
    extra = [path.name for path in GENERATED.glob("*.py*") if path.is_file() and path.name not in fresh]
    if stale or extra:
        print(
            f"wire/generated is not what nodepool.proto says ({', '.join(stale + extra)}): run `make proto`",
            file=sys.stderr,
        )
        return 1
    return 0


def generate() -> dict[str, str]:
    """File name → text, as the pinned generator writes it from nodepool.proto.

    Raises:
        SystemExit: the generator refuses the file; it has said why.
    """
    with tempfile.TemporaryDirectory() as scratch:
        outputs = [f"--{kind}_out={scratch}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
        # The generator finds its mypy plugins beside the interpreter.
        plugins = [
            f"--plugin={name}={Path(sys.executable).parent / name}"
            for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
        ]
        command = [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={WIRE}",
            *plugins,
            *outputs,
            "nodepool.proto",
        ]
        if subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode != 0:
            raise SystemExit(1)
        texts = {path.name: path.read_text(encoding="utf-8") for path in Path(scratch).iterdir()}
    for name, (flat, packaged) in FLAT_IMPORTS.items():
        if flat not in texts[name]:
            raise SystemExit(f"{name}: the generator no longer writes {flat!r}; adapt FLAT_IMPORTS in scripts/proto.py")
        texts[name] = texts[name].replace(flat, packaged)
    return {"__init__.py": CAPTION, **texts}


def _stands(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
