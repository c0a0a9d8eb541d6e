"""Which source wins, and what is said about a value that will not do."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hivemind_worker import errors
from hivemind_worker.settings import paths, reference, schema, sources

ORDER = ("flag", "HIVEMIND_", "plain", "file")


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "hivemind.toml"


def _refused(
    flags: dict[str, Any] | None = None, environ: dict[str, str] | None = None, path: Path | None = None
) -> list[str]:
    with pytest.raises(errors.BadSettings) as caught:
        sources.load(flags or {}, environ or {}, path)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    "said", [c for n in range(5) for c in itertools.combinations(ORDER, n)], ids=lambda said: "+".join(said) or "none"
)
def test_the_strongest_source_that_speaks_wins_and_is_named(said: tuple[str, ...], toml: Path) -> None:
    values = {source: 1 + index for index, source in enumerate(ORDER)}
    names = {
        "flag": "--heartbeat-interval",
        "HIVEMIND_": "HIVEMIND_HEARTBEAT_INTERVAL",
        "plain": "HEARTBEAT_INTERVAL",
        "file": str(toml),
    }
    flags = {"heartbeat_interval": values["flag"]} if "flag" in said else {"heartbeat_interval": None}
    environ = {names[source]: str(values[source]) if source in said else "" for source in ("HIVEMIND_", "plain")}
    toml.write_text(f"[node]\nheartbeat_interval = {values['file']}\n" if "file" in said else "")
    [row] = [row for row in sources.explain(flags, environ, toml) if row.setting.key == "heartbeat_interval"]
    expected = next((source for source in ORDER if source in said), None)
    assert row.source == (names[expected] if expected else "default")
    assert row.value == (str(values[expected]) if expected else "30")
    assert sources.load(flags, environ, toml).node.heartbeat_interval == float(row.value)


def test_explaining_shows_every_setting_once() -> None:
    assert [row.setting for row in sources.explain({}, {})] == list(reference.settings())


def test_empty_and_blank_count_as_unset(toml: Path) -> None:
    toml.write_text('[node]\nnode_id = ""\n')
    environ = {"HIVEMIND_NODE_ID": "  ", "NODE_ID": "", "MAX_CPU_CORES": "", "DOCKER_ENABLED": ""}
    assert sources.load({"node_id": "", "labels": ()}, environ, toml) == schema.Settings()


def test_a_flag_that_says_no_is_not_unset() -> None:
    assert sources.load({"docker_enabled": False}, {"DOCKER_ENABLED": "true"}).docker.docker_enabled is False
    assert sources.load({"max_concurrent_tasks": 0}, {"MAX_CONCURRENT_TASKS": "4"}).limits.max_concurrent_tasks == 0


@pytest.mark.parametrize(
    "given", ["zone=a, disk=ssd", ["zone=a", "disk=ssd"], ("zone=a", "disk=ssd"), {"zone": "a", "disk": "ssd"}]
)
def test_labels_are_pairs_however_they_come(given: Any) -> None:
    assert sources.load({"labels": given}, {}).node.labels == {"zone": "a", "disk": "ssd"}


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("MAX_CPU_CORES", "-1", "greater than or equal to 0"),
        ("MAX_MEMORY_GB", "inf", "finite"),
        ("HIVEMIND_TASK_TIMEOUT", "nan", "finite"),
        ("TASK_TIMEOUT", "0", "greater than 0"),
        ("HEARTBEAT_INTERVAL", "soon", "valid number"),
        ("MAX_CONCURRENT_TASKS", "1.5", "valid integer"),
        ("HIVEMIND_POLL_WAIT_SECONDS", "61", "less than or equal to 60"),
        ("DOCKER_ENABLED", "perhaps", "valid boolean"),
        ("HIVEMIND_ISOLATION", "none", "'auto', 'docker' or 'sandbox'"),
        ("NODE_ID", "../../etc", "letters, digits"),
        ("NODE_ID", "x" * 65, "at most 64"),
        ("NODE_POOL_ADDRESS", "localhost", "host:port"),
        ("NODE_POOL_ADDRESS", "localhost:70000", "host:port"),
        ("DOCKER_HOST", "/var/run/docker.sock", "unix:///path"),
        ("HIVEMIND_DEFAULT_IMAGE", "x --privileged", "image reference"),
        ("HIVEMIND_LABELS", "zone", "NAME=VALUE"),
        ("HIVEMIND_LABELS", "=a", "NAME=VALUE"),
        ("HIVEMIND_RESULTS_LIMIT_BYTES", "4 parsecs", "byte unit"),
        ("HIVEMIND_POOL_STORE", "sqlite:///var/lib/pool.sqlite", "this is a URL; write a path, such as /var/lib/pool."),
        ("HIVEMIND_POOL_STORE", "sqlite:pool.sqlite", "this is a URL"),
        ("HIVEMIND_POOL_STORE", "postgresql://host/pool", "this is a URL"),
        ("HIVEMIND_POOL_ARTIFACT_DIR", "file:///var/lib/x", "this is a URL; write a path, such as /var/lib/x"),
    ],
)
def test_a_bad_value_is_one_line_that_says_which_where_and_what(variable: str, value: str, problem: str) -> None:
    [line] = _refused(environ={variable: value})
    [setting] = [row for row in reference.settings() if variable in row.variables]
    assert line.startswith(f"{setting.key} (from {variable}): ")
    assert problem in line
    assert setting.help in line


def test_everything_wrong_is_told_at_once(toml: Path) -> None:
    toml.write_text("[limits]\nmax_cpu_cores = -1\nmax_cpu = 3\n")
    lines = _refused({"listen": "ignored", "pool_listen": "nowhere"}, {"TASK_TIMEOUT": "x"}, toml)
    assert len(lines) == 4
    assert [
        key
        for key in ("max_cpu_cores", "limits.max_cpu;", "pool_listen", "task_timeout")
        if not any(key in line for line in lines)
    ] == []


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (
            "[node]\nheartbeat_intervall = 3",
            "no setting node.heartbeat_intervall; did you mean node.heartbeat_interval?",
        ),
        ("heartbeat_interval = 3", "no setting heartbeat_interval; did you mean node.heartbeat_interval?"),
        ("[limits]\nheartbeat_interval = 3", "did you mean node.heartbeat_interval?"),
        ("[pool]\npool_listen = 'x:1'", "did you mean pool.listen?"),
        ("[dokcer]\n", "no setting dokcer; did you mean docker?"),
        ("[zebra]\n", "no setting zebra; `hivemind config show` lists"),
        ("node = 3", "node is a table of settings: write [node]"),
        ("[node\n", "cannot be read as TOML"),
    ],
)
def test_what_a_file_says_wrongly_is_named_with_what_was_meant(text: str, hint: str, toml: Path) -> None:
    toml.write_text(text)
    [line] = _refused(path=toml)
    assert line.startswith(str(toml))
    assert hint in line


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    [line] = _refused(path=tmp_path)
    assert "cannot be read as TOML" in line


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"HIVEMIND_ISOLATION": "docker", "DOCKER_ENABLED": "false"}, "docker_enabled is false"),
        ({"HIVEMIND_TLS_CERT_FILE": "/a.pem"}, "tls_cert_file and tls_key_file go together"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(environ: dict[str, str], named: str) -> None:
    [line] = _refused(environ=environ)
    assert named in line


def test_the_file_is_the_one_named_or_the_first_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "config_files", lambda: (tmp_path / "own.toml", tmp_path / "system.toml"))
    assert sources.find_file(None, {}) is None
    (tmp_path / "system.toml").touch()
    assert sources.find_file(None, {}) == tmp_path / "system.toml"
    (tmp_path / "own.toml").touch()
    assert sources.find_file("", {"HIVEMIND_CONFIG": ""}) == tmp_path / "own.toml"
    assert sources.find_file(None, {"HIVEMIND_CONFIG": str(tmp_path / "system.toml")}) == tmp_path / "system.toml"
    with pytest.raises(errors.BadSettings, match=r"--config names .* no file"):
        sources.find_file(tmp_path / "missing.toml", {})
    with pytest.raises(errors.BadSettings, match="HIVEMIND_CONFIG names"):
        sources.find_file(None, {"HIVEMIND_CONFIG": str(tmp_path)})


def test_a_variable_misspelt_is_doubted_and_others_left_alone() -> None:
    environ = {
        "HIVEMIND_HEARTBEAT_INTERVALL": "3",
        "HIVEMIND_SERVICE_HOST": "10.0.0.1",
        "HIVEMIND_CONFIG": "x",
        "NODE_ID": "a",
    }
    [line] = sources.doubts(environ)
    assert "HIVEMIND_HEARTBEAT_INTERVALL is no setting" in line
    assert "did you mean HIVEMIND_HEARTBEAT_INTERVAL?" in line


@example({"HIVEMIND_PRELOAD_IMAGES": ":,:,:"})
@example({"HIVEMIND_NODE_POOL_ADDRESS": "0", "HIVEMIND_EGRESS_ALLOW": "0\r1", "HIVEMIND_EGRESS_DENY": "0\r1"})
@given(
    st.dictionaries(st.sampled_from([v for row in reference.settings() for v in row.variables]), st.text(max_size=20))
)
def test_any_environment_gives_settings_or_one_line_for_each_fault(environ: dict[str, str]) -> None:
    try:
        settings = sources.load({}, environ)
    except errors.BadSettings as error:
        lines = str(error).split("\n")
        parts = sum(max(1, len(re.split(r"[,\s]+", value))) for value in environ.values())  # of lists
        assert 1 <= len(lines) <= parts + 1
        assert all(line and ": " in line for line in lines)
    else:
        assert isinstance(settings, schema.Settings)
