"""Which images tasks may run, decided of values alone; and one form for every spelling of a reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from hivemind_worker import errors
from hivemind_worker.runtime.docker import image_access, pulled, references
from hivemind_worker.settings import sources

DIGEST = f"sha256:{'a' * 64}"
ID = f"sha256:{'b' * 64}"


@pytest.mark.parametrize(
    ("spelling", "full"),
    [
        ("x", "docker.io/library/x:latest"),
        ("x:1", "docker.io/library/x:1"),
        ("library/x:1", "docker.io/library/x:1"),
        ("docker.io/x:1", "docker.io/library/x:1"),
        ("index.docker.io/library/x:1", "docker.io/library/x:1"),
        ("Docker.IO/x", "docker.io/library/x:latest"),
        ("team/x", "docker.io/team/x:latest"),
        ("GHCR.io/team/x:2", "ghcr.io/team/x:2"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
        (f"x@{DIGEST}", f"docker.io/library/x@{DIGEST}"),
        (f"x:1@{DIGEST}", f"docker.io/library/x@{DIGEST}"),
        ("0123456789ab", "docker.io/library/0123456789ab:latest"),  # an engine finds no id by that
    ],
)
def test_every_spelling_has_one_form(spelling: str, full: str) -> None:
    assert str(references.parse(spelling)) == full
    assert str(references.parse(full)) == full


@pytest.mark.parametrize(
    "text", ["b" * 64, f"sha256:{'b' * 64}", "sha256:0123456789ab", f"docker.io/{'b' * 64}", "x y"]
)
def test_an_id_is_no_reference(text: str) -> None:
    with pytest.raises(errors.InvalidTask):
        references.parse(text)


LISTED = [
    ("*", "ghcr.io/a/b:1", True),
    ("x", "docker.io/x:2", True),
    ("x:1", "x:2", False),
    ("x:1.*", "library/x:1.7", True),
    ("x", "team/x", False),
    ("x", "evil.example/library/x", False),
    ("team/*", "team/app:3", True),
    ("team/*", "team/a/b", False),
    ("team/**", "team/a/b", True),
    ("team/*", "teams/app", False),
    ("team/*", "localhost/team/app", False),
    ("registry.example:5000/team/*", "Registry.Example:5000/team/app", True),
    ("registry.example/team/*", "registry.example:5000/team/app", False),
    ("index.docker.io/x", "x", True),
    (DIGEST, "anything:1", True),
    (ID, "anything:1", True),
    (f"sha256:{'c' * 64}", "anything:1", False),
    (f"anything@{DIGEST}", "anything:1", True),
    (f"other@{DIGEST}", "anything:1", False),
    ("x.y", "xzy", False),
]


@pytest.mark.parametrize(("pattern", "reference", "listed"), LISTED)
def test_the_owner_lists_by_pattern_digest_or_id(pattern: str, reference: str, *, listed: bool) -> None:
    settings = sources.load({"allowed_images": pattern, "default_image": "unrelated:1"}, {}).images
    parsed = references.parse(reference)
    assert image_access.of(settings, "unrelated:1").lists(parsed, ID, [f"{parsed.name}@{DIGEST}"]) is listed


def test_what_the_settings_name_for_tasks_is_listed() -> None:
    settings = sources.load({"preload_images": "own/app:1"}, {}).images
    rules = image_access.of(settings, "python:3.11-slim")
    for name, listed in {"own/app:1": True, "own/app:2": False, "docker.io/python:3.11-slim": True}.items():
        assert rules.lists(references.parse(name), ID, ()) is listed, name


@pytest.mark.parametrize("registry", ["docker.io", "ghcr.io", "registry.example.org:5000", "8.8.8.8:5000", "quay.io."])
def test_names_of_the_internet_are_public(registry: str) -> None:
    assert image_access.is_public(registry)


@pytest.mark.parametrize(
    "registry",
    [
        "localhost", "localhost:5000", "127.0.0.1:5000", "10.1.2.3", "192.168.0.1:443", "169.254.169.254", "[::1]:5000",
        "registry", "registry:5000", "nas.local", "registry.corp:5000", "x.internal", "127.1", "0x7f.1", "a.localhost.",
    ],
)  # fmt: skip
def test_names_of_a_private_network_are_not(registry: str) -> None:
    assert not image_access.is_public(registry)


def test_registries_are_the_owners_to_choose() -> None:
    near = references.parse("registry.corp:5000/x")
    public = references.parse("ghcr.io/x/y")
    by_default = image_access.Rules()
    assert by_default.pull_refusal(public) == ""
    assert "image_registries" in by_default.pull_refusal(near)
    assert image_access.Rules(registries=("registry.corp:5000",)).pull_refusal(near) == ""
    assert image_access.Rules(registries=("registry.corp:5000",)).pull_refusal(public) != ""
    assert image_access.Rules(logins=("Registry.Corp:5000",)).pull_refusal(near) == ""
    assert not by_default.may_login("docker.io")
    assert image_access.Rules(logins=("index.docker.io",)).may_login("docker.io")
    assert not image_access.Rules(logins=("registry.corp",)).may_login("registry.corp:5000")


@pytest.mark.parametrize("setting", ["allowed_images", "image_registries", "registry_logins"])
@pytest.mark.parametrize("value", ["-x", "a;b", "http://x/y", "sha256:zz", "a@b"])
def test_what_is_no_pattern_or_host_is_refused(setting: str, value: str) -> None:
    with pytest.raises(errors.BadSettings, match=setting):
        sources.load({setting: value}, {})


def test_a_commands_own_image_is_its_owners_to_run_and_no_other() -> None:
    settings = image_access.of_owner(sources.load({}, {}).images, "registry.corp:5000/mine")
    rules = image_access.of(settings, "python:3.11-slim")
    assert rules.lists(references.parse("registry.corp:5000/mine"), ID, ())
    assert not rules.lists(references.parse("registry.corp:5000/other"), ID, ())
    assert rules.may_login("registry.corp:5000")


def test_pulls_are_known_after_a_restart_also_those_that_were_cut_off(tmp_path: Path) -> None:
    first = pulled.Pulled(tmp_path / "pulled")
    first.begin("a", ["old"], login=False)
    first.end("b", "id-b", login=False)
    first.end("c", "id-c", login=True)
    first.refuse("d", ["old"])
    again = pulled.Pulled(tmp_path / "pulled")
    assert again.get("a") == pulled.Pull("a", "", login=False, before=frozenset({"old"}))
    assert again.get("c") == pulled.Pull("c", "id-c", login=True, before=frozenset())
    assert again.ids() == {"id-b"}
    (tmp_path / "pulled" / "broken.json").write_text("{")
    assert pulled.Pulled(tmp_path / "pulled").get("nothing") is None
