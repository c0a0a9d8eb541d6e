"""The map is true for each file: it says what it is, and is short enough to be read."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "src" / "hivemind_worker" / "wire" / "generated"
LONGEST = 400
WRITTEN = ("src", "scripts", "tests", "benchmarks", "examples")


def written(*suffixes: str) -> list[Path]:
    found = (path for folder in WRITTEN for path in (ROOT / folder).rglob("*") if path.suffix in suffixes)
    return sorted(path for path in found if not path.is_relative_to(GENERATED) and "__pycache__" not in path.parts)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_file_has_a_caption() -> None:
    paths = [path for path in written(".py") if path.is_relative_to(ROOT / "src")]
    assert len(paths) > 20
    captions = {name(path): ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in paths}
    assert {
        path: first for path, text in captions.items() if not 10 <= len(first := text.partition("\n")[0]) <= 118
    } == {}


def test_every_c_file_has_a_caption() -> None:
    paths = written(".c", ".h")
    assert len(paths) > 10
    assert [name(path) for path in paths if not path.read_text(encoding="utf-8").startswith(("/*", "//"))] == []


def test_no_file_is_too_long() -> None:
    lengths = {
        name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in written(".py", ".c", ".h", ".proto")
    }
    assert len(lengths) > 20
    assert {path: length for path, length in lengths.items() if length > LONGEST and not path.endswith(".proto")} == {}
