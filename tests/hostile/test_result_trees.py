"""H01, H02, H05: trees of results that mean harm, read by the real program of the capsule while they change.

It runs here with no fence around it, as root where the tests are: what keeps it off a readable file beside the
workspace is its way of reading alone. Each tree is drawn from a seed, and half of them change while they are read.
"""

from __future__ import annotations

import contextlib
import os
import platform
import random
import shutil
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import capsules
import pytest

from hivemind_worker.runtime.capsule import init, paths
from hivemind_worker.runtime.capsule import messages as m

SECRET = b"bytes of the host"
NAMES = (b"a", b"b", b"c d", b"x\n", b"\xff\xfe", b"-rf", b"...", b"~", b"\xe2\x80\xae", b"n" * 255, b"'$(id)'")
LIMITS = m.Limits(timeout_ms=10_000, results_bytes=1 << 20, results_apparent=1 << 20, results_count=64, results_depth=6)
SPARSE = 0.2
"""The part of the files that have holes."""


class Tree:
    """A tree below ``root`` with everything that a task can make there; ``contents`` of its regular files."""

    def __init__(self, root: Path, outside: Path, seed: int) -> None:
        self._draw = random.Random(seed)
        self._outside = outside
        self.contents: dict[bytes, bytes] = {}
        self._root = root
        self._fill(root, depth=0)

    def _fill(self, folder: Path, depth: int) -> None:
        makers = (self._file, self._file, self._folder, self._link, self._link, self._odd)
        for name in self._draw.sample(NAMES, self._draw.randrange(1, 6)):
            with contextlib.suppress(OSError):  # a name too long or there already
                self._draw.choice(makers)(folder / os.fsdecode(name), depth)

    def _file(self, path: Path, _: int) -> None:
        content = self._draw.randbytes(self._draw.choice((0, 10, 5000)))
        path.write_bytes(content)
        if self._draw.random() < SPARSE:
            os.truncate(path, len(content) + self._draw.choice((4096, 1 << 40)))
        path.chmod(self._draw.choice((0o644, 0o600, 0, 0o4755, 0o2777, 0o1666)))
        self.contents[os.fsencode(path.relative_to(self._root))] = content

    def _folder(self, path: Path, depth: int) -> None:
        path.mkdir()
        if depth < LIMITS.results_depth + 2:
            self._fill(path, depth + 1)
        path.chmod(self._draw.choice((0o755, 0o700, 0o300)))

    def _link(self, path: Path, depth: int) -> None:
        up = "../" * (depth + 2)
        targets = (self._outside, self._outside / "secret", f"{up}outside/secret", f"{up}outside", ".", "..", path, "a")
        path.symlink_to(self._draw.choice((*targets, "/dev/zero", f"/proc/self/root{self._outside}", "/proc/self/cwd")))

    def _odd(self, path: Path, _: int) -> None:
        match self._draw.randrange(4):
            case 0:
                os.mkfifo(path)
            case 1 if os.geteuid() == 0:
                os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
            case 2:
                with socket.socket(socket.AF_UNIX) as listening:
                    listening.bind(str(path))
            case _:
                path.hardlink_to(self._root / "a")


@contextlib.contextmanager
def swapping(root: Path, outside: Path) -> Iterator[None]:
    """Put a folder and a link to the outside in each other's place all the while."""
    over = threading.Event()
    place, link, folder = root / "swapped", root.parent / "link", root.parent / "folder"
    folder.mkdir()
    (folder / "secret").write_bytes(b"inside")

    def swap() -> None:
        while not over.is_set():
            folder.rename(place)
            place.rename(folder)
            link.symlink_to(outside)
            link.rename(place)
            place.unlink()

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        yield
    finally:
        over.set()
        swapper.join()
        shutil.rmtree(folder)


def read_tree(scratch: Path, seed: int) -> None:
    workspace, outside = scratch / "workspace", scratch / "outside"
    results = workspace / "results"
    results.mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET)
    for folder in (scratch, workspace, results):
        folder.chmod(0o777)
    tree = Tree(results, outside, seed)
    changing = swapping(results, outside) if seed % 2 else contextlib.nullcontext()
    with capsules.Capsule([init.binary_path(platform.machine())], workspace) as capsule, changing:
        capsule.begin(m.Spec(argv=(b"/bin/true",), workspace=os.fsencode(workspace), limits=LIMITS))
        heard = capsule.finish(60)
    assert heard.messages, seed
    assert isinstance(heard.messages[-1], m.Done), (seed, heard.messages[-1])
    for path, content in heard.results.items():
        assert SECRET not in content, (seed, path)
        assert paths.problem(path) is None, (seed, path)
        if path in tree.contents:
            assert bytes(content).rstrip(b"\0") == tree.contents[path].rstrip(b"\0"), (seed, path)
    assert (outside / "secret").read_bytes() == SECRET
    assert [path.name for path in outside.iterdir()] == ["secret"]


def _read_trees(tmp_path: Path, seeds: range) -> None:
    for seed in seeds:
        scratch = tmp_path / "tree"
        scratch.mkdir()
        read_tree(scratch, seed)
        shutil.rmtree(scratch)


def test_h01_h02_h05_no_host_byte_leaves_by_a_tree_of_results(tmp_path: Path) -> None:
    _read_trees(tmp_path, range(40))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_h01_h02_h05_no_host_byte_leaves_by_ten_thousand_trees_of_results(tmp_path: Path) -> None:
    _read_trees(tmp_path, range(10_000))
