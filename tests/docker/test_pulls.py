"""Real pulls by the real engine from a real registry on loopback, good ones and broken ones."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attempts
import engine_api
import own_images
import pytest
import pytest_asyncio
import registry
import waiting

from hivemind_worker.concurrency import stopping
from hivemind_worker.runtime.docker import docker_executor, image_access, ledger, pulled, pulling
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.settings import schema
from hivemind_worker.tasks import outcome
from hivemind_worker.worker.housekeeping import images as housekeeping
from hivemind_worker.worker.housekeeping import policy

pytestmark = pytest.mark.docker

QUICK = pulling.Terms(seconds=60.0, stall_seconds=30.0, pauses=(0.1, 0.1))


@pytest.fixture(scope="module")
def there(docker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    registry.need()
    with registry.serving(tmp_path_factory.mktemp("registry"), docker_url) as host:
        yield host


@pytest_asyncio.fixture
async def faults(there: str) -> AsyncIterator[registry.Faults]:
    async with registry.before(there) as made:
        yield made


@pytest.fixture
def image(there: str, faults: registry.Faults, docker_url: str, busybox_image: str) -> Iterator[registry.Image]:
    """An image that no engine has yet, named by way of the proxy."""
    made = registry.put(there, f"t{uuid.uuid4().hex[:12]}")
    made = dataclasses.replace(made, name=made.name.replace(there, faults.host))
    yield made
    if engine_api.has_image(docker_url, made.name):
        engine_api.delete(docker_url, f"/images/{made.name}")


@asynccontextmanager
async def bench(
    url: str, folder: Path, access: pulled.Access = own_images.ANY, **more: object
) -> AsyncIterator[attempts.Bench]:
    patience = dataclasses.replace(QUICK, **more)  # type: ignore[arg-type]  # each test names fields of Terms
    supply = docker_executor.Supply(ours=ledger.Ledger(folder / "ours"), pulls=patience)
    async with attempts.docker_bench(url, "none", folder, supply=supply, access=access) as made:
        yield made


def logins(*hosts: str) -> pulled.Access:
    return pulled.Access(image_access.Rules(logins=hosts))


def layers_size(url: str) -> int:
    return int(engine_api.get(url, "/system/df")["LayersSize"])


async def test_one_pull_serves_all_who_wait_and_each_hears_of_it(
    docker_url: str, image: registry.Image, faults: registry.Faults, tmp_path: Path
) -> None:
    watchers = [attempts.Watcher() for _ in range(5)]
    async with bench(docker_url, tmp_path) as made:
        ended = await asyncio.gather(
            *(made.shell("echo here", image=image.name, watcher=watcher) for watcher in watchers)
        )
        assert image.name in made.executor.images
    assert [(each.error, each.logs.text) for each in ended] == [("", b"here\n")] * 5
    assert {each.image_digest for each in ended} == {image.digest}
    assert sorted(faults.blobs()) == sorted({*faults.blobs()})  # each once
    assert set(image.layers) <= set(faults.blobs())
    for watcher in watchers:
        assert any(f"pulling {image.name}" in note for note in watcher.notes)
        assert any(f"pulled {image.name} in" in note for note in watcher.notes)
    record = ledger.Ledger(tmp_path / "ours").get(image.name)
    assert record is not None
    assert record.kind is ledger.Kind.IMAGE


async def test_what_was_pulled_is_ours_to_remove_and_is_pulled_again(
    docker_url: str, image: registry.Image, faults: registry.Faults, tmp_path: Path
) -> None:
    place = housekeeping.Images(engines.Engine(docker_url), ledger.Ledger(tmp_path / "ours"), frozenset)

    async def seen() -> list[policy.Thing]:
        return [thing for thing in await place.look() if thing.name == image.name and not thing.held]

    async with bench(docker_url, tmp_path) as made:
        assert (await made.shell("true", image=image.name)).error == ""
        free: list[policy.Thing] = await waiting.wait_until(seen, description="no container of it is left")
        (thing,) = free
        assert await place.remove(thing)
        assert not engine_api.has_image(docker_url, image.name)
        assert ledger.Ledger(tmp_path / "ours").get(image.name) is None
        asked_before = len(faults.blobs())
        assert (await made.shell("echo back", image=image.name)).logs.text == b"back\n"
        assert len(faults.blobs()) > asked_before
        assert ledger.Ledger(tmp_path / "ours").get(image.name) is not None


async def test_a_missing_image_fails_at_once(docker_url: str, faults: registry.Faults, tmp_path: Path) -> None:
    async with bench(docker_url, tmp_path, pauses=(60.0,)) as made:
        ended = await asyncio.wait_for(made.shell("true", image=f"{faults.host}/nothing/here:1"), 20)
    assert ended.reason is outcome.Reason.IMAGE_UNAVAILABLE
    assert "nothing/here" in ended.error


async def test_a_registry_that_is_not_well_is_tried_again(
    docker_url: str, image: registry.Image, faults: registry.Faults, tmp_path: Path
) -> None:
    faults.word, faults.status, faults.times = "/manifests/", 503, 2
    watcher = attempts.Watcher()
    async with bench(docker_url, tmp_path) as made:
        ended = await made.shell("echo here", image=image.name, watcher=watcher)
    assert (ended.error, ended.logs.text) == ("", b"here\n")
    assert any("trying again" in note and "503" in note for note in watcher.notes)


async def test_a_registry_that_stays_broken_is_given_up_in_its_own_words(
    docker_url: str, image: registry.Image, faults: registry.Faults, tmp_path: Path
) -> None:
    faults.word, faults.status = "/manifests/", 500
    async with bench(docker_url, tmp_path) as made:
        ended = await made.shell("true", image=image.name)
    assert ended.reason is outcome.Reason.IMAGE_UNAVAILABLE
    assert "500" in ended.error


async def test_d06_a_layer_that_breaks_off_is_fetched_again(
    docker_url: str, image: registry.Image, faults: registry.Faults, tmp_path: Path
) -> None:
    faults.word, faults.broken_after, faults.times = image.layers[1], 20_000, 1
    async with bench(docker_url, tmp_path) as made:
        ended = await made.shell("cat /data/0 | busybox wc -c", image=image.name)
    assert (ended.error, ended.logs.text.strip()) == ("", b"100000")
    assert faults.met == 1


async def test_d06_a_pull_that_stands_still_is_ended_and_harms_nobody(
    docker_url: str, image: registry.Image, faults: registry.Faults, busybox_image: str, tmp_path: Path
) -> None:
    before = layers_size(docker_url)
    faults.word, faults.held_after = image.layers[1], 20_000
    async with bench(docker_url, tmp_path, stall_seconds=1.5, pauses=()) as made:
        stuck = asyncio.create_task(made.shell("true", image=image.name))
        await waiting.wait_until(lambda: faults.met, description="the layer is asked for", seconds=20)
        beside = await made.shell("echo well", image=busybox_image)
        assert beside.logs.text == b"well\n"
        ended = await asyncio.wait_for(stuck, 20)
    assert ended.reason is outcome.Reason.IMAGE_UNAVAILABLE
    assert "pull_stall_seconds" in ended.error
    await waiting.wait_until(
        lambda: layers_size(docker_url) <= before, description="no part of the image is left", seconds=15
    )


@pytest.mark.long
async def test_a_pull_has_its_own_clock(
    docker_url: str, image: registry.Image, faults: registry.Faults, tmp_path: Path
) -> None:
    faults.word, faults.held_after = image.layers[1], 20_000
    async with bench(docker_url, tmp_path, seconds=2.0) as made:
        late = await made.shell("true", image=image.name)
        assert late.reason is outcome.Reason.IMAGE_UNAVAILABLE
        assert "pull_timeout" in late.error
    async with bench(docker_url, tmp_path) as made:
        running = asyncio.create_task(made.shell("echo here", image=image.name, limits={"timeout_seconds": 1.0}))
        await waiting.wait_until(lambda: faults.met > 1, description="the layer is asked for again", seconds=20)
        begun = loop_time()
        await waiting.wait_until(lambda: loop_time() - begun > 1.5, description="the task's own time passes", seconds=5)
        faults.released.set()
        ended = await running
    assert (ended.error, ended.logs.text) == ("", b"here\n")
    assert ended.timings["prepare"] > 1.0


def loop_time() -> float:
    return asyncio.get_running_loop().time()


async def test_l12_who_is_cancelled_while_an_image_is_pulled_leaves_it_to_the_others(
    docker_url: str, image: registry.Image, faults: registry.Faults, tmp_path: Path
) -> None:
    faults.word, faults.held_after = image.layers[1], 20_000
    stops = [stopping.Stop(), stopping.Stop()]
    async with bench(docker_url, tmp_path) as made:
        runs = [asyncio.create_task(made.shell("echo here", image=image.name, stop=stop)) for stop in stops]
        await waiting.wait_until(lambda: faults.met, description="the layer is asked for", seconds=20)
        stops[0].request(stopping.StopLevel.CANCEL, "cancelled")
        assert (await asyncio.wait_for(runs[0], 10)).status is outcome.Status.CANCELLED
        faults.released.set()  # the pull goes on for the other
        assert (await asyncio.wait_for(runs[1], 20)).logs.text == b"here\n"


async def test_l12_a_pull_that_nobody_waits_for_is_ended_and_the_next_task_begins_anew(
    docker_url: str, image: registry.Image, faults: registry.Faults, tmp_path: Path
) -> None:
    before = layers_size(docker_url)
    faults.word, faults.held_after = image.layers[1], 20_000
    stop = stopping.Stop()
    async with bench(docker_url, tmp_path) as made:
        running = asyncio.create_task(made.shell("true", image=image.name, stop=stop))
        await waiting.wait_until(lambda: faults.met, description="the layer is asked for", seconds=20)
        stop.request(stopping.StopLevel.CANCEL, "cancelled")
        assert (await asyncio.wait_for(running, 10)).status is outcome.Status.CANCELLED
        await waiting.wait_until(
            lambda: layers_size(docker_url) <= before, description="no part of the image is left", seconds=15
        )
        faults.word = ""
        assert (await made.shell("echo here", image=image.name)).logs.text == b"here\n"


async def test_d06_an_image_for_another_machine_is_refused_in_words_and_not_kept(
    docker_url: str, there: str, faults: registry.Faults, busybox_image: str, tmp_path: Path
) -> None:
    name = f"t{uuid.uuid4().hex[:12]}"
    made = registry.put(there, name, machine="s390x", layers=1)
    listed = registry.put_list(there, name, made, "s390x").replace(there, faults.host)
    async with bench(docker_url, tmp_path) as under_test:
        plain = await under_test.shell("true", image=made.name.replace(there, faults.host))
        of_a_list = await under_test.shell("true", image=listed)
    assert {plain.reason, of_a_list.reason} == {outcome.Reason.IMAGE_UNAVAILABLE}
    assert "is for linux/s390x" in plain.error
    assert "no matching manifest" in of_a_list.error
    assert not engine_api.has_image(docker_url, made.name.replace(there, faults.host))


@pytest.mark.parametrize("way", ["auth", "fields", "helper"])
async def test_the_owners_logins_are_used_and_told_to_nobody(
    docker_url: str,
    image: registry.Image,
    faults: registry.Faults,
    tmp_path: Path,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults.credentials = "owner:s3cret"
    config = {
        "auth": {"auths": {f"http://{faults.host}/v2/": {"auth": base64.b64encode(b"owner:s3cret").decode()}}},
        "fields": {"auths": {faults.host: {"username": "owner", "password": "s3cret"}}},
        "helper": {"credHelpers": {faults.host: "of-the-test"}, "auths": {faults.host: {}}},
    }
    if way == "helper":
        helper = tmp_path / "docker-credential-of-the-test"
        answer = '{"Username": "owner", "Secret": "s3cret"}'
        helper.write_text(f"#!/bin/sh\nread -r asked\ntest \"$asked\" = {faults.host} && echo '{answer}'\n")
        helper.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "config.json").write_text(json.dumps(config[way]))
    watcher = attempts.Watcher()
    async with bench(docker_url, tmp_path, logins(faults.host), config=tmp_path) as made:
        ended = await made.shell("echo here", image=image.name, watcher=watcher)
    assert (ended.error, ended.logs.text) == ("", b"here\n")
    assert "s3cret" not in "".join(watcher.notes)


async def test_without_a_login_it_is_said_what_is_missing(
    docker_url: str, image: registry.Image, faults: registry.Faults, tmp_path: Path
) -> None:
    faults.credentials = "owner:s3cret"
    async with bench(docker_url, tmp_path, config=tmp_path) as made:
        ended = await made.shell("true", image=image.name)
    assert ended.reason is outcome.Reason.IMAGE_UNAVAILABLE
    assert "docker login" in ended.error


async def test_images_are_preloaded_and_what_cannot_be_had_stops_nothing(
    docker_url: str, image: registry.Image, faults: registry.Faults, tmp_path: Path
) -> None:
    async with bench(docker_url, tmp_path, pauses=()) as made:
        made.executor.preload(["--no-reference", f"{faults.host}/nothing/here:1", image.name])
        await waiting.wait_until(
            lambda: engine_api.has_image(docker_url, image.name), description="the image is there", seconds=20
        )
        faults.asked.clear()
        ended = await made.shell("echo here", image=image.name)
    assert ended.logs.text == b"here\n"
    assert faults.asked == []


async def test_policy_always_asks_the_registry_each_time(
    docker_url: str, there: str, image: registry.Image, faults: registry.Faults, tmp_path: Path
) -> None:
    supply = docker_executor.Supply(pulls=QUICK)
    policy = schema.PullPolicy.ALWAYS
    async with attempts.docker_bench(docker_url, image.name, tmp_path, supply=supply, policy=policy) as made:
        first = await made.shell("true")
        newer = registry.put(there, image.name.partition("/")[2].partition(":")[0])
        second = await made.shell("true")
    assert (first.image_digest, second.image_digest) == (image.digest, newer.digest)
    repository = image.name.rpartition(":")[0]
    engine_api.delete(docker_url, f"/images/{repository}@{image.digest}")  # whose name the newer one has taken
