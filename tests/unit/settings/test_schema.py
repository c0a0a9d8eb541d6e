"""Every setting is explained, named once, and keeps the promises of the design pages."""

from __future__ import annotations

import subprocess
import sys

import pydantic
import pytest

from hivemind_worker.settings import paths, reference, schema, sources

PLAIN_NAMES = {
    "NODE_ID", "NODE_POOL_ADDRESS", "MAX_CPU_CORES", "MAX_MEMORY_GB", "MAX_DISK_GB", "TASK_TIMEOUT",
    "MAX_CONCURRENT_TASKS", "HEARTBEAT_INTERVAL", "DOCKER_ENABLED", "DOCKER_NETWORK", "WORK_DIR", "TEMP_DIR", "LOG_DIR",
}  # fmt: skip


def test_every_setting_has_a_flag_a_variable_and_a_text() -> None:
    for setting in reference.settings():
        assert setting.flag.startswith("--"), setting
        assert setting.variables[0] == f"HIVEMIND_{setting.key.upper()}", setting
        assert setting.help.endswith("."), setting
        assert len(setting.help) > 20, setting
        assert (setting.kind is reference.Kind.CHOICE) == bool(setting.choices), setting


def test_no_two_settings_share_a_name() -> None:
    rows = reference.settings()
    for names in ([row.key for row in rows], [row.flag for row in rows], [v for row in rows for v in row.variables]):
        assert len(names) == len(set(names))


def test_the_references_own_names_are_all_heard() -> None:
    heard = {
        variable for row in reference.settings() for variable in row.variables if not variable.startswith("HIVEMIND_")
    }
    assert heard == PLAIN_NAMES | {"DOCKER_HOST", "DOCKER_CONFIG", "PIP_INDEX_URL", "HTTPS_PROXY", "SSL_CERT_FILE"}


def test_the_references_own_defaults_stand() -> None:
    settings = schema.Settings()
    assert settings.node.node_pool_address == "localhost:50051"
    assert settings.node.heartbeat_interval == 30
    assert (settings.limits.max_cpu_cores, settings.limits.max_memory_gb, settings.limits.max_disk_gb) == (0, 0, 0)
    assert (settings.limits.task_timeout, settings.limits.max_concurrent_tasks) == (3600, 1)
    assert (settings.docker.docker_enabled, settings.docker.docker_network) == (True, "hivemind")


def test_a_default_typed_back_in_is_the_default() -> None:
    typed = {row.variables[0]: row.default for row in reference.settings()}
    assert sources.load({}, typed) == schema.Settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        schema.Settings().node.node_id = "other"  # type: ignore[misc]  # that is the test


def test_what_hangs_on_the_state_folder_moves_with_it() -> None:
    settings = sources.load({}, {"HIVEMIND_STATE_DIR": "/srv/hm", "TEMP_DIR": "/fast"})
    assert str(settings.storage.work_dir) == "/srv/hm/work"
    assert str(settings.storage.temp_dir) == "/fast"
    assert str(schema.Settings().storage.temp_dir) == "/var/tmp"
    assert str(settings.pool_store) == "/srv/hm/pool.sqlite"
    assert str(settings.pool_artifact_dir) == "/srv/hm/pool-artifacts"


def test_root_has_the_machines_folders_and_others_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "is_root", lambda: True)
    assert str(paths.state_dir()) == "/var/lib/hivemind"
    assert str(paths.log_dir()) == "/var/log/hivemind"
    assert [str(path) for path in paths.config_files()] == ["/etc/hivemind/hivemind.toml"]
    monkeypatch.setattr(paths, "is_root", lambda: False)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/a/state")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/a/config")
    assert str(paths.state_dir()) == "/home/a/state/hivemind"
    assert str(paths.log_dir()).startswith("/home/a/state/hivemind/")
    assert str(paths.config_files()[0]) == "/home/a/config/hivemind/hivemind.toml"


def test_naming_the_room_does_not_import_pydantic() -> None:
    code = "import sys, hivemind_worker.settings; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
