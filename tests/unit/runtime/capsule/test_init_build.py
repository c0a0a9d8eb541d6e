from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import capsules
import pytest

from hivemind_worker.runtime.capsule import init
from hivemind_worker.runtime.capsule import messages as m
from hivemind_worker.runtime.capsule.init import build

ELF_MACHINE = {"x86_64": 62, "aarch64": 183}


@pytest.mark.parametrize(("name", "machine"), [("x86_64", "x86_64"), ("amd64", "x86_64"), ("ARM64", "aarch64")])
def test_the_binary_of_each_machine_is_there_small_and_static(name: str, machine: str) -> None:
    data = init.binary_path(name).read_bytes()
    assert len(data) < 100_000
    assert data[:5] == b"\x7fELF\x02"
    assert int.from_bytes(data[18:20], "little") == ELF_MACHINE[machine]
    assert b"ld-musl" not in data
    assert init.sha256(name) == hashlib.sha256(data).hexdigest()
    assert os.access(init.binary_path(name), os.X_OK)


def test_a_machine_it_is_not_built_for_is_named() -> None:
    with pytest.raises(LookupError, match="riscv64"):
        init.binary_path("riscv64")


def test_the_record_tells_the_sources_and_the_binaries_as_they_are() -> None:
    paths = [init.binary_path(machine, name) for name in build.PROGRAMS for machine in build.TARGETS]
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert (build.HERE / "bin" / "SOURCES").read_text() == build.record(digests)


def test_no_source_file_is_over_400_lines() -> None:
    sources = [path for name in build.PROGRAMS for path in build.sources(name)]
    assert all(len(path.read_text().splitlines()) <= 400 for path in sources)


@pytest.mark.long  # the C library of two machines is compiled where the compiler's cache is empty
@pytest.mark.timeout(600)
def test_built_anew_the_binaries_are_the_same_byte_for_byte(tmp_path: Path) -> None:
    for name, digest in build.build_all(tmp_path).items():
        assert digest == hashlib.sha256((build.HERE / "bin" / name).read_bytes()).hexdigest(), name
        assert os.fsencode(Path.home()) not in (tmp_path / name).read_bytes()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_built_elsewhere_with_an_empty_cache_they_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "another place"
    shutil.copytree(build.HERE / "source", elsewhere / "source")
    monkeypatch.setattr(build, "HERE", elsewhere)
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(tmp_path / "cache"))
    for machine in build.TARGETS:
        build.build(machine, tmp_path / machine)
        assert (tmp_path / machine).read_bytes() == init.binary_path(machine).read_bytes()


def test_the_binary_for_arm_runs_a_task(tmp_path: Path) -> None:
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if emulator is None:
        pytest.skip("no qemu-aarch64: the arm64 program is built but not run here; install qemu-user")
    with capsules.Capsule([emulator, init.binary_path("aarch64")], tmp_path) as capsule:
        capsule.begin(capsules.shell("cat in; echo x > results/r", tmp_path), [m.File(b"in", b"hello")])
        heard = capsule.finish()
    assert heard.output() == b"hello"
    assert heard.results == {b"r": b"x\n"}


def test_it_tells_its_version(shipped: Path) -> None:
    out = subprocess.run([shipped, "--version"], capture_output=True, check=True).stdout
    assert out == b"hivemind-init, conversation 1\n"
