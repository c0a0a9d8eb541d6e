"""Where things are kept when nobody says: never in whatever folder we happen to be."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from hivemind_worker import errors
from hivemind_worker.settings import paths


@pytest.mark.parametrize("home", ["~", "", None])
def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    def folder(name: str, *, appauthor: bool) -> Path:
        if home is None:
            raise RuntimeError("could not determine the home directory")
        return Path(home) / name

    monkeypatch.setattr(paths, "is_root", lambda: False)
    for name in ("user_state_path", "user_cache_path", "user_log_path", "user_config_path"):
        monkeypatch.setattr(platformdirs, name, folder)
    for which in (paths.state_dir, paths.cache_dir, paths.log_dir):
        with pytest.raises(errors.BadSettings, match="no home folder: set HOME"):
            which()
    assert paths.config_files() == (Path("/etc/hivemind/hivemind.toml"),)
