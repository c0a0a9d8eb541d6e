"""`make demo` as a newcomer runs it: real tasks, fenced, each ending as it should."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


PACKAGED = ("fridays", "model", "pictures", "rainfall", "words", "train_model.py", "analyse_table.py", "keywords.py")


def demo(docker_host: str, tmp_path: Path, *flags: str, **more: str) -> str:
    seen = subprocess.run(
        [sys.executable, ROOT / "scripts" / "demo.py", *flags],
        env={
            **os.environ,
            "DOCKER_HOST": docker_host,
            "TMPDIR": str(tmp_path),
            "COLUMNS": "160",
            "TERM": "dumb",
            **more,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=1980,
    )
    logs = "".join(log.read_text(encoding="utf-8")[-3000:] for log in tmp_path.glob("hivemind-demo-*/up.log"))
    assert seen.returncode == 0, seen.stdout + seen.stderr + logs
    assert re.search(r"All \d+ tasks ended as expected", seen.stdout), seen.stdout
    (results,) = tmp_path.glob("hivemind-demo-*/results")
    assert (results / "run_command" / "said.txt").read_text(encoding="utf-8").startswith("so many processors: ")
    squares = results / "run_script" / "script-results" / "8" / "squares.txt"
    assert squares.read_text(encoding="utf-8").split()[-1] == "64"
    assert (results / "fractal" / "fractal.png").read_bytes().startswith(b"\x89PNG")
    assert (results / "primes" / "primes.txt").read_text(encoding="utf-8").split()[-1] == "199999"
    return seen.stdout


def data_results(tmp_path: Path) -> None:
    """Each of the examples that need packages left what it is to leave."""
    (results,) = tmp_path.glob("hivemind-demo-*/results")
    assert "2026-02-13" in (results / "fridays" / "fridays.md").read_text(encoding="utf-8")
    assert (results / "pictures" / "images" / "frost.webp").read_bytes().startswith(b"RIFF")
    assert (results / "pictures" / "contact_sheet.jpg").stat().st_size > 10_000
    assert json.loads((results / "rainfall" / "summary.json").read_text(encoding="utf-8"))["rows"] == 488
    assert "Rain at four stations" in (results / "rainfall" / "report.html").read_text(encoding="utf-8")
    model = json.loads((results / "model" / "metrics.json").read_text(encoding="utf-8"))
    assert model["test"]["accuracy"] > 0.9
    assert {path.name for path in (results / "model").iterdir()} >= {"model.joblib", "model.onnx", "confusion.png"}
    assert (results / "train_model" / "model-results" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert "the model: model-results/model.joblib" in (results / "train_model" / "said.txt").read_text(encoding="utf-8")
    assert "rain_mm" in (results / "analyse_table" / "said.txt").read_text(encoding="utf-8")
    assert (results / "contact_sheet" / "picture-results" / "contact_sheet.jpg").stat().st_size > 10_000
    assert "ja.txt (ja, " in (results / "keywords" / "said.txt").read_text(encoding="utf-8")
    words = json.loads((results / "words" / "summary.json").read_text(encoding="utf-8"))
    assert words["languages"] == {"zh": 2, "de": 1, "en": 1, "fr": 1, "ja": 1}
    assert (results / "words" / "plots.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
@pytest.mark.sandbox
@pytest.mark.timeout(900)
def test_without_an_engine(tmp_path: Path) -> None:
    said = demo(f"unix://{tmp_path}/no-engine.sock", tmp_path)
    assert "Isolation in force: sandbox." in said
    data_results(tmp_path)


@pytest.mark.long
@pytest.mark.sandbox
@pytest.mark.timeout(300)
def test_where_the_package_index_cannot_be_reached(tmp_path: Path) -> None:
    index = "http://someone:s3cret@127.0.0.1:1/simple"
    said = demo(f"unix://{tmp_path}/no-engine.sock", tmp_path, PIP_INDEX_URL=index, NO_PROXY="127.0.0.1")
    assert "the package index http://127.0.0.1:1/simple cannot be reached from here" in said
    assert all(name in said.partition("left out: ")[2].partition("\n")[0] for name in PACKAGED)
    assert "s3cret" not in said


@pytest.mark.long
@pytest.mark.docker
@pytest.mark.timeout(300)
def test_with_an_engine(docker_url: str, python_image: str, tmp_path: Path) -> None:
    said = demo(docker_url, tmp_path, "--without-packages")
    assert python_image
    assert "Isolation in force: docker." in said


@pytest.mark.long
@pytest.mark.docker
@pytest.mark.timeout(900)
def test_with_an_engine_and_packages(docker_url: str, python_image: str, tmp_path: Path) -> None:
    assert python_image
    assert "Isolation in force: docker." in demo(docker_url, tmp_path)
    data_results(tmp_path)


@pytest.mark.long
@pytest.mark.docker
@pytest.mark.sandbox
@pytest.mark.timeout(300)
def test_with_an_engine_that_the_owner_has_switched_off(docker_url: str, tmp_path: Path) -> None:
    said = demo(docker_url, tmp_path, "--without-packages", DOCKER_ENABLED="false")
    assert "Isolation in force: sandbox." in said


@pytest.mark.long
@pytest.mark.docker
@pytest.mark.timeout(2000)
def test_all_of_it_with_the_frameworks_of_gigabytes(engine: str, python_image: str, tmp_path: Path) -> None:
    assert python_image
    demo(engine, tmp_path, "--all")
    (results,) = tmp_path.glob("hivemind-demo-*/results")
    for name in ("pytorch", "pytorch-script", "tensorflow", "tensorflow-script", "scikit-learn", "scikit-learn-script"):
        assert json.loads((results / name / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.long
@pytest.mark.sandbox
@pytest.mark.timeout(900)
def test_from_a_fresh_clone(tmp_path: Path) -> None:
    """The README's first command, in a clone that has never been set up."""
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "clone"], check=True)
    environment = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/no-engine.sock", "TMPDIR": str(tmp_path)}
    for name in ("VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL"):
        environment.pop(name, None)
    command = [shutil.which("make") or "make", "demo", f"PYTHON={sys.base_prefix}/bin/python3"]
    seen = subprocess.run(
        command, cwd=tmp_path / "clone", env=environment, capture_output=True, text=True, check=False, timeout=880
    )
    assert seen.returncode == 0, seen.stdout + seen.stderr
    assert re.search(r"All \d+ tasks ended as expected", seen.stdout)
