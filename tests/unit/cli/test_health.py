from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hivemind_worker.cli.commands import health
from hivemind_worker.settings import reference, sources

HEAVY = {"pydantic", "grpc", "aiodocker", "starlette", "uvicorn", "prometheus_client", "rich", "psutil", "asyncio"}


def test_its_own_option_is_the_setting_s() -> None:
    (row,) = [row for row in reference.settings() if row.key == "state_dir"]
    assert (row.flag, row.variables) == (health.STATE_DIR[0], (health.STATE_DIR[1],))


@pytest.mark.parametrize("said", ["nothing", "flag", "variable", "file", "named file", "all"])
def test_the_folder_is_the_one_that_the_settings_find(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HIVEMIND_STATE_DIR", raising=False)
    monkeypatch.delenv("HIVEMIND_CONFIG", raising=False)
    file = tmp_path / "hivemind.toml"
    file.write_text('[storage]\nstate_dir = "/from/file"\n')
    if said in {"variable", "all"}:
        monkeypatch.setenv("HIVEMIND_STATE_DIR", "~/from/variable")
    if said == "named file":
        monkeypatch.setenv("HIVEMIND_CONFIG", str(file))
    flag = "from/flag" if said in {"flag", "all"} else None
    config = str(file) if said in {"file", "all"} else None
    found = sources.find_file(config, os.environ)
    wanted = sources.load({"state_dir": flag}, os.environ, found).storage.state_dir
    assert health._state_dir(flag, config) == wanted


def test_asking_reads_no_settings_and_imports_no_wire(tmp_path: Path) -> None:
    """A HEALTHCHECK runs every half minute on every machine: what it imports is what it costs."""
    script = (
        "import sys\n"
        "from hivemind_worker.cli import root\n"
        "try:\n"
        f"    root.run(['health', '--state-dir', {str(tmp_path)!r}])\n"
        "except SystemExit as ended:\n"
        "    assert ended.code == 1\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
    assert "neither a worker nor a pool answers over HTTP" in done.stderr
