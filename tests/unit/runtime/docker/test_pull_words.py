"""What pulls are told and tell, without any engine: progress, causes, logins."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from hivemind_worker.runtime.docker import credentials, pull_progress, pulling, references


def line(layer: str, status: str, current: int = 0, total: int = 0) -> dict[str, Any]:
    return {"id": layer, "status": status, "progressDetail": {"current": current, "total": total} if total else {}}


def test_progress_counts_layers_and_bytes_and_speaks_now_and_then() -> None:
    progress = pull_progress.Progress("busybox:1", 100.0)
    said = [
        progress.take({"id": "1", "status": "Pulling from library/busybox"}, 100.1),
        progress.take(line("a", "Pulling fs layer"), 100.2),
        progress.take(line("b", "Already exists"), 100.3),
        progress.take(line("a", "Downloading", 1_000_000, 4_000_000), 101.0),
        progress.take(line("a", "Downloading", 2_000_000, 4_000_000), 103.5),
        progress.take(line("a", "Download complete"), 104.0),
        progress.take(line("a", "Extracting", 100, 4_000_000), 107.0),
        progress.take(line("a", "Pull complete"), 111.0),
    ]
    assert said == [
        "", "", "", "",
        "pulling busybox:1: 1 of 2 layers, 2.0 of 4.0 MB",
        "",
        "pulling busybox:1: 1 of 2 layers, 4.0 of 4.0 MB",
        "pulling busybox:1: 2 of 2 layers, 4.0 of 4.0 MB",
    ]  # fmt: skip


def test_the_same_said_again_is_no_progress() -> None:
    progress = pull_progress.Progress("x", 0.0)
    progress.take(line("a", "Downloading", 10, 100), 1.0)
    assert progress.moved == 1.0
    progress.take(line("a", "Downloading", 10, 100), 50.0)
    assert progress.moved == 1.0
    progress.take(line("a", "Downloading", 11, 100), 51.0)
    assert progress.moved == 51.0


@pytest.mark.parametrize(
    "hostile", [{}, {"id": 5, "status": ["x"]}, {"id": "a", "status": "Downloading", "progressDetail": "none"},
                {"id": "a", "status": "Downloading", "progressDetail": {"current": "1", "total": None}}],
)  # fmt: skip
def test_lines_of_another_form_harm_nobody(hostile: dict[str, Any]) -> None:
    progress = pull_progress.Progress("x", 0.0)
    progress.take(hostile, 10.0)
    assert progress.text().startswith("pulling x: ")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("manifest for busybox:nope not found: manifest unknown", pulling.Cause.FINAL),
        ("pull access denied for x, repository does not exist or may require 'docker login'", pulling.Cause.FINAL),
        ("no matching manifest for linux/amd64 in the manifest list entries", pulling.Cause.FINAL),
        ('Get "https://r.example/v2/": no basic auth credentials', pulling.Cause.FINAL),
        ("received unexpected HTTP status: 503 Service Unavailable", pulling.Cause.NETWORK),
        ("dial tcp 127.0.0.1:1: connect: connection refused", pulling.Cause.NETWORK),
        ("toomanyrequests: You have reached your pull rate limit", pulling.Cause.NETWORK),
        ("unexpected EOF", pulling.Cause.NETWORK),
        ("failed to register layer: write /x: no space left on device", pulling.Cause.OURS),
    ],
)
def test_what_is_tried_again_and_what_is_not(said: str, why: pulling.Cause) -> None:
    assert pulling.cause(said) is why


def read(header: str) -> dict[str, str]:
    return dict(json.loads(base64.urlsafe_b64decode(header))) if header else {}


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        ("busybox", references.HUB),
        ("library/busybox:1", references.HUB),
        ("docker.io/library/busybox", references.HUB),
        ("ghcr.io/a/b:1", "ghcr.io"),
        ("localhost/a", "localhost"),
        ("127.0.0.1:5000/a@sha256:" + "0" * 64, "127.0.0.1:5000"),
    ],
)
def test_which_registry_an_image_is_from(reference: str, registry: str) -> None:
    assert references.registry(reference) == registry


@pytest.mark.parametrize("key", ["r.example", "https://r.example", "https://r.example/v1/", "http://r.example/v2/x"])
async def test_logins_are_found_however_their_registry_is_written(tmp_path: Path, key: str) -> None:
    auth = base64.b64encode(b"user:pass:word").decode()
    (tmp_path / "config.json").write_text(
        json.dumps({"auths": {"other.example": {"auth": "eDp5"}, key: {"auth": auth}}})
    )
    found = read(await credentials.Credentials(tmp_path).header("r.example/a/b:1"))
    assert found == {"serveraddress": "r.example", "username": "user", "password": "pass:word"}


async def test_a_login_to_docker_hub_is_for_names_without_a_registry_only(tmp_path: Path) -> None:
    said = {"auths": {references.HUB: {"auth": base64.b64encode(b"me:pw").decode()}}}
    (tmp_path / "config.json").write_text(json.dumps(said))
    login = credentials.Credentials(tmp_path)
    assert read(await login.header("busybox:1"))["username"] == "me"
    assert await login.header("r.example/busybox:1") == ""


async def test_tokens_are_handed_on(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"r.example": {"identitytoken": "t"}}}))
    found = read(await credentials.Credentials(tmp_path).header("r.example/x"))
    assert found == {"serveraddress": "r.example", "identitytoken": "t"}


async def test_helpers_are_asked_before_the_file_and_a_token_is_known_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\ncat >"$0.asked"; echo \'{"Username": "<token>", "Secret": "s"}\'\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "test"}))
    found = read(await credentials.Credentials(tmp_path).header("r.example/x"))
    assert found == {"serveraddress": "r.example", "identitytoken": "s"}
    assert (tmp_path / "docker-credential-test.asked").read_text() == "r.example"


@pytest.mark.parametrize(
    ("config", "trouble"),
    [
        ("{", "cannot be read"),
        ("[]", ""),
        ('{"auths": {"r.example": {"auth": "!"}}}', ""),
        ('{"credsStore": "../evil"}', "no plain name"),
        ('{"credsStore": "is-not-here"}', "cannot be run"),
        ('{"credHelpers": 5, "auths": 6}', ""),
    ],
)
async def test_a_configuration_that_cannot_be_used_is_no_login_and_said(
    tmp_path: Path, config: str, trouble: str
) -> None:
    (tmp_path / "config.json").write_text(config)
    login = credentials.Credentials(tmp_path)
    assert await login.header("r.example/x") == ""
    assert trouble in login.trouble


async def test_without_a_configuration_there_is_no_login(tmp_path: Path) -> None:
    assert await credentials.Credentials(tmp_path).header("r.example/x") == ""
    assert await credentials.Credentials(None).header("r.example/x") == ""
