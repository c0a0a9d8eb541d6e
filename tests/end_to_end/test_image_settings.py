"""The settings of images, each seen to act in the installed command: patience, logins, images ahead of need."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import engine_api
import installed
import pytest
import registry
import waiting

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def there(docker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    registry.need()
    with registry.serving(tmp_path_factory.mktemp("registry"), docker_url) as host:
        yield host


@pytest.fixture
def user(docker_url: str, tmp_path: Path) -> installed.Shell:
    return installed.Shell(tmp_path, "--isolation", "docker", "--docker-host", docker_url)


async def run(user: installed.Shell, *words: str, **variables: str) -> installed.Said:
    """The faults between engine and registry live on our loop: the command runs beside it."""
    return await asyncio.to_thread(user.run, *words, **variables)


@pytest.mark.long
@pytest.mark.parametrize("setting", ["pull_timeout", "pull_stall_seconds"])
async def test_the_owner_says_how_patient_a_pull_is(
    user: installed.Shell, there: str, busybox_image: str, setting: str
) -> None:
    async with registry.before(there) as faults:
        image = registry.put(there, f"t{uuid.uuid4().hex[:12]}")
        faults.word, faults.held_after = image.layers[1], 20_000
        # Standing still is tried again four times: its own end is not waited for.
        limits = {"HIVEMIND_PULL_TIMEOUT": "3", f"HIVEMIND_{setting.upper()}": "1"}
        said = await run(user, "--image", image.name.replace(there, faults.host), "--", "true", **limits)
    assert said.code == 125
    assert "image_unavailable" in said.err
    assert ("trying again" in said.err) == (setting == "pull_stall_seconds")


@pytest.mark.parametrize("policy", ["never", pytest.param("if-missing", marks=pytest.mark.long), "always"])
async def test_when_images_are_fetched_is_the_owners_word_and_so_are_logins(
    user: installed.Shell, there: str, busybox_image: str, policy: str, docker_url: str, tmp_path: Path
) -> None:
    async with registry.before(there) as faults:
        name = registry.put(there, f"t{uuid.uuid4().hex[:12]}").name.replace(there, faults.host)
        faults.credentials = "owner:s3cret"
        login = tmp_path / "logins"
        login.mkdir()
        auths = {faults.host: {"auth": base64.b64encode(b"owner:s3cret").decode()}}
        (login / "config.json").write_text(json.dumps({"auths": auths}))
        words = ("--pull-policy", policy, "--image", name, "--", "/bin/sh", "-c", "echo here")
        first = await run(user, *words, DOCKER_CONFIG=str(login))
        asked = len(faults.asked)
        second = await run(user, *words, DOCKER_CONFIG=str(login))
        again = len(faults.asked) - asked
    if policy == "never":
        assert (first.code, second.code, asked) == (125, 125, 0)
        assert "pull_policy" in first.err
        return
    assert (first.text, second.text) == ("here\n", "here\n"), first.err
    assert (again > 0) == (policy == "always")
    assert "s3cret" not in first.err
    engine_api.delete(docker_url, f"/images/{name}")


async def test_images_of_the_owner_and_of_the_pool_are_there_before_any_task(
    user: installed.Shell, there: str, busybox_image: str, docker_url: str
) -> None:
    async with registry.before(there) as faults:
        own, pools = (
            registry.put(there, f"t{uuid.uuid4().hex[:12]}").name.replace(there, faults.host) for _ in range(2)
        )

        def preloaded() -> None:
            # The owner's own list is allowed as it is; the pool's comes from registries that tasks may use.
            words = (f"--preload-images={own}", f"--pool-preload-images={pools}", f"--image-registries={faults.host}")
            with installed.running_up(user, *words):
                waiting.wait_for(
                    lambda: all(engine_api.has_image(docker_url, name) for name in (own, pools)),
                    description="both images are there",
                    seconds=30,
                )

        await asyncio.to_thread(preloaded)
    for name in (own, pools):
        engine_api.delete(docker_url, f"/images/{name}")
