"""The release folder, and what its installer does to a machine: below a folder, for this machine is not ours."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import hivemind_worker
from hivemind_worker.settings import schema
from hivemind_worker.worker.attempts import roster

ROOT = Path(__file__).resolve().parents[2]
# The worker alone is installed, and finds the rest where the tests have it: nothing is fetched.
NOTHING_FETCHED = {"PIP_NO_DEPS": "1", "PYTHONPATH": sysconfig.get_path("purelib")}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "release.py", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "HiveMind-Worker-Release"


def _install(folder: Path, *words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HIVEMIND_")}
    return subprocess.run(
        [folder / "install.sh", "--python", sys.executable, *words],
        capture_output=True, text=True, check=False, env={**kept, **variables}, timeout=500,
    )  # fmt: skip


def _ends_well(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _version(root: Path, **variables: str) -> str:
    python = root / "opt" / "hivemind-worker" / "bin" / "python"
    command: list[str | Path] = [python, "-m", "hivemind_worker", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **variables})
    return str(done.stdout).strip()


def test_the_release_is_whole(release: Path) -> None:
    (wheel,) = release.glob("*.whl")
    names = {path.name for path in release.iterdir()}
    assert names - {wheel.name} == {
        "CHANGELOG.md", "Dockerfile", "LICENSE", "README.md", "SHA256SUMS",
        "file.ico", "hivemind-worker.service", "install.sh", "start_worker.cmd",
    }  # fmt: skip
    lines = (line.partition("  ") for line in (release / "SHA256SUMS").read_text().splitlines())
    sums = {name: said for said, _, name in lines}
    assert sums.keys() == names - {"SHA256SUMS"}
    assert all(hashlib.sha256((release / name).read_bytes()).hexdigest() == said for name, said in sums.items())
    inside = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "web/dashboard/templates/page.html",
        "web/dashboard/static/page.js",
        "runtime/capsule/init/bin/hivemind-init-x86_64",
    ):
        assert f"hivemind_worker/{needed}" in inside
    assert os.access(release / "install.sh", os.X_OK)


def test_the_windows_script_is_one_that_windows_reads(release: Path) -> None:
    text = (release / "start_worker.cmd").read_bytes()
    assert text.isascii()
    assert text.count(b"\r\n") == text.count(b"\n") == len(text.splitlines())
    said = text.decode()
    assert "needs a Docker engine" in said
    assert said.count("exit /b") == 4
    assert re.search(r"docker build [^\n]*\"%~dp0\.\"", said), "the image is made of this folder"
    with Image.open(release / "file.ico") as icon:
        assert {16, 32, 48, 256} <= {width for width, _ in icon.info["sizes"]}


@pytest.mark.long
@pytest.mark.timeout(300)
def test_it_installs_and_goes_without_what_is_not_its_own(release: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    words = ("--root", root, "--node-pool=pool.example:50051", "--node-id=worker-001")
    said = _ends_well(_install(release, *words, **NOTHING_FETCHED))
    settings = root / "etc" / "hivemind" / "hivemind.toml"
    assert f"settings: {settings}" in said
    assert hivemind_worker.__version__ in _version(root, PYTHONPATH=NOTHING_FETCHED["PYTHONPATH"])
    found = tomllib.loads(settings.read_text())
    assert found["node"] == {"node_pool_address": "pool.example:50051", "node_id": "worker-001"}
    assert found["storage"] == {"log_dir": "/var/log/hivemind"}
    assert os.access(root / "usr" / "local" / "bin" / "hivemind", os.X_OK)
    assert (root / "etc/systemd/system/hivemind-worker.service").exists()

    (root / "var" / "lib" / "hivemind").mkdir(parents=True)
    strange = root / "usr" / "local" / "bin" / "hivemind-worker"
    strange.write_text("#!/bin/sh\nexec /home/me/bin/hivemind-worker\n")
    assert "still there" in _ends_well(_install(release, "--uninstall", "--root", root))
    left = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    assert left == {"etc/hivemind/hivemind.toml", "usr/local/bin/hivemind-worker"}
    assert (root / "var" / "lib" / "hivemind").is_dir()
    _ends_well(_install(release, "--uninstall", "--purge", "--root", root))  # again, and what was left
    assert {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()} == {
        str(strange.relative_to(root))
    }
    assert not (root / "var" / "lib" / "hivemind").exists()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_installed_again_it_mends_itself_and_takes_another_build(release: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    words = ("--root", root, "--node-pool=pool.example:50051")
    path = {"PYTHONPATH": NOTHING_FETCHED["PYTHONPATH"]}
    _ends_well(_install(release, *words, **NOTHING_FETCHED))
    settings = root / "etc" / "hivemind" / "hivemind.toml"
    settings.write_text("# the owner's own\n")
    programs = root / "opt" / "hivemind-worker"
    (its,) = programs.glob("lib/*/site-packages/hivemind_worker/__init__.py")
    its.write_text('__version__ = "0.1.0+another-build"\n')
    assert "is left as it is" in _ends_well(_install(release, *words, **NOTHING_FETCHED))
    assert "another-build" not in its.read_text()
    assert hivemind_worker.__version__ in _version(root, **path)

    shutil.rmtree(programs / "lib")  # broken meanwhile: another run mends it
    _ends_well(_install(release, *words, **NOTHING_FETCHED))
    assert hivemind_worker.__version__ in _version(root, **path)
    assert settings.read_text() == "# the owner's own\n"


def test_it_refuses_what_it_should_not_touch(release: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "root" / "opt" / "hivemind-worker"
    theirs.mkdir(parents=True)
    (theirs / "mine").touch()
    root = ("--root", tmp_path / "root")
    refused = _install(release, *root, **NOTHING_FETCHED)
    assert (refused.returncode, "is not ours" in refused.stderr) == (1, True)
    assert _install(release, "--uninstall", *root).returncode == 0
    assert (theirs / "mine").exists()
    odd = _install(release, "--node-pool", 'x"\n[node]', *root)
    assert (odd.returncode, "are plain" in odd.stderr) == (1, True)
    assert _install(release, "--no-such-thing").returncode == 2
    assert _install(release, "--purge", *root).returncode == 1
    copy = tmp_path / "copy"
    shutil.copytree(release, copy)
    (copy / "LICENSE").write_text("another")
    bad = _install(copy, "--root", tmp_path / "other", **NOTHING_FETCHED)
    assert (bad.returncode, "not those of the release" in bad.stderr) == (1, True)
    assert not (tmp_path / "other").exists()


def test_the_service_is_one_that_systemd_takes(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "hivemind-worker.service").read_text()
    found = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert found is not None
    its = schema.Limits()
    assert int(found[1]) > its.drain_timeout + its.grace_seconds + roster.REPORT_SECONDS
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here; the times are right")
    unit = tmp_path / "hivemind-worker.service"
    unit.write_text(text.replace("/opt/hivemind-worker/bin/python", sys.executable))
    done = subprocess.run([program, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long
@pytest.mark.sandbox
@pytest.mark.timeout(600)
def test_what_is_installed_from_a_checkout_runs_tasks(tmp_path: Path) -> None:
    root = tmp_path / "root"
    _ends_well(_install(ROOT / "deploy", "--root", root))
    python = root / "opt" / "hivemind-worker" / "bin" / "python"
    command: list[str | Path] = [python, "-m", "hivemind_worker", "run", "--isolation=sandbox", "--", "echo", "hello"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HIVEMIND_")}
    done = subprocess.run(command, capture_output=True, env={**kept, "HOME": str(tmp_path)}, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr.decode()
