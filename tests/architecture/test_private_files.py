"""Whatever the product keeps is made by `filesystem`: nothing else makes folders, opens to write, or sets modes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "hivemind_worker"

ELSEWHERE = (
    "filesystem/",  # the one place
    "tasks/kinds/programs/",  # run inside capsules, on what a task may have
    "runtime/environments/programs/",  # a process that imports nothing of ours and writes one staged folder
    "runtime/capsule/init/build.py",  # run by hand, in a source tree
    "wire/generated/",
)
EXCEPTIONS = {
    "runtime/cgroup_kill.py": {"write_text"},  # the kernel's files
    "runtime/capsule/freezer.py": {"open"},  # the same
    "runtime/sandbox/limits.py": {
        "mkdir",
        "write_text",
    },  # control groups: the kernel's files, which have no modes of ours
    "runtime/sandbox/process.py": {"write_text"},  # the map of a user namespace: a file of the kernel too
    "client/landing.py": {"fchmod"},  # output that the user asked for, with his umask
    "cli/probing.py": {"TemporaryFile"},  # it has no name, and is there to see whether the disk takes it
    "runtime/sandbox/holder.py": {"umask"},  # a program of its own, which imports nothing of ours
    "cli/root.py": {"os.open", "open"},  # /dev/null in the place of closed standard streams
}
CHANGING = frozenset(
    {"mkdir", "makedirs", "chmod", "fchmod", "lchmod", "umask", "write_text", "write_bytes", "touch", "mknod", "mkfifo"}
    | {"mkstemp", "mkdtemp", "mktemp", "NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory"}
    | {"copyfile", "copy2", "copytree", "copymode", "setxattr"}
)
WRITING_FLAGS = ("O_CREAT", "O_WRONLY", "O_RDWR", "O_APPEND", "O_TRUNC")


def violations(source: str) -> set[str]:
    """The calls by which a module makes folders or files, opens them to write or changes their modes."""
    return {name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and (name := _bad(node))}


def _bad(call: ast.Call) -> str:
    function = call.func
    owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if owner in {"private_dir", "private_file", "umask"}:
        return ""
    if name in CHANGING:
        return name
    if owner == "os" and name == "open":
        return "os.open" if any(flag in ast.unparse(call) for flag in WRITING_FLAGS) else ""
    if name == "open" and owner not in {"tarfile", "zipfile", "os"}:
        return "open" if _writes(call, 1 if not owner else 0) else ""
    return ""


def _writes(call: ast.Call, place: int) -> bool:
    given = [*call.args[place : place + 1], *(word.value for word in call.keywords if word.arg == "mode")]
    # A mode that is no constant may be any: what is no mode at all (a Stop, a set) is no text either.
    modes = [each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    named = [ast.unparse(each) for each in given if isinstance(each, ast.Name | ast.Attribute)]
    return any(set(mode) & set("wax+") for mode in modes) or any(name.split(".")[-1] == "mode" for name in named)


@pytest.mark.parametrize(
    "source",
    [
        "folder.mkdir(mode=0o700)",
        "os.makedirs(path)",
        "path.open('wb')",
        "open(path, mode='a')",
        "open(fd, mode)",
        "os.open(path, os.O_RDWR | os.O_CREAT)",
        "path.write_text('')",
        "os.fchmod(fd, 0o644)",
        "tempfile.mkdtemp()",
        "os.umask(0)",
        "shutil.copyfile(a, b)",
    ],
)
def test_it_has_teeth(source: str) -> None:
    assert violations(source)


@pytest.mark.parametrize("source", ["path.open('rb')", "open(path)", "os.open(path, os.O_RDONLY)", "self._pool.open()"])
def test_reading_is_free(source: str) -> None:
    assert not violations(source)


def test_state_is_made_by_one_package_alone() -> None:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(ELSEWHERE) and (calls := violations(path.read_text(encoding="utf-8"))):
            found[name] = calls
    assert found == EXCEPTIONS
