"""Each defence of sandboxes is tried: a bubblewrap that leaves one out, or many, is found out by the deed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import attempts
import pytest

from hivemind_worker.runtime import proving

pytestmark = pytest.mark.sandbox

# Takes options off bubblewrap's command line, then becomes it. NAME:COUNT leaves out an option with so many values;
# +WORDS adds some.
WRAPPER = """#!/usr/bin/python3 -IS
import os, sys
words, after = sys.argv[1:], []
for change in {changes!r}:
    if change.startswith("+"):
        at = words.index("--remount-ro") if "--remount-ro" in words else words.index("--info-fd")
        words[at:at] = change[1:].split()
        continue
    name, count = change.rsplit(":", 1)
    wanted = name.split()
    while True:
        places = [i for i in range(len(words)) if words[i:i + len(wanted)] == wanted]
        if not places:
            break
        del words[places[0]:places[0] + len(wanted) + int(count)]
os.execv({bwrap!r}, ["bwrap", *words])
"""

STRIPS: Mapping[str, tuple[tuple[str, ...], set[str]]] = {
    "network": (("--unshare-net:0",), {"network", "namespaces"}),
    "filter": (("--filter:1",), {"system_calls"}),
    "ipc": (("--unshare-ipc:0",), {"namespaces"}),
    "uts": (("--unshare-uts:0", "--hostname:1"), {"namespaces"}),
    "root": (("--remount-ro /:0",), {"root"}),
    "host": (("+--ro-bind / /host",), {"mounts"}),
    "host_written": (("+--bind /var/tmp /mnt",), {"mounts"}),
    "folders": (("--tmpfs /tmp:1",), {"mounts"}),
    "devices": (("--dev:1", "--remount-ro /dev:0", "+--dev-bind /dev /dev"), {"devices", "mounts"}),
    "user": (("--users:2",), {"run"}),
    "processes": (("--proc:1", "+--ro-bind /proc /proc"), {"processes"}),
}
"""One way each to take a defence off, and what the probe shows of it."""


@contextlib.contextmanager
def _stripped(monkeypatch: pytest.MonkeyPatch, *changes: str) -> Iterator[None]:
    bwrap = shutil.which("bwrap")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        script = Path(folder) / "bwrap"
        script.write_text(WRAPPER.format(changes=changes, bwrap=bwrap))
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        yield


async def _broken(tmp_path: Path) -> dict[str, str]:
    async with attempts.process_bench(tmp_path) as bench:
        return {each.id: each.evidence for each in proving.broken(await proving.prove(bench.executor))}


async def test_a_sandbox_as_it_is_holds_all(tmp_path: Path) -> None:
    assert await _broken(tmp_path) == {}


async def test_what_is_left_out_at_once_is_named_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("network", "filter", "ipc", "uts", "root", "host", "folders")
    with _stripped(monkeypatch, *(change for name in names for change in STRIPS[name][0])):
        broken = await _broken(tmp_path)
    assert broken.keys() >= set().union(*(STRIPS[name][1] for name in names)), broken


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(STRIPS))
async def test_each_left_out_alone_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes, seen = STRIPS[name]
    with _stripped(monkeypatch, *changes):
        broken = await _broken(tmp_path)
    assert broken.keys() & seen or "run" in broken, broken
    assert "run" in broken or broken.keys() >= seen, broken
