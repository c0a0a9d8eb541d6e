"""Tasks run what was pulled for them and what the owner listed, not whatever lies at the engine."""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp.web
import attempts
import engine_api
import pytest
import pytest_asyncio
import registry
import test_network

from hivemind_worker.runtime.docker import docker_executor, image_access, ledger, pulled, pulling
from hivemind_worker.tasks import outcome

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def there(docker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    registry.need()
    with registry.serving(tmp_path_factory.mktemp("registry"), docker_url) as host:
        yield host


@pytest_asyncio.fixture
async def faults(there: str) -> AsyncIterator[registry.Faults]:
    async with registry.before(there) as made:
        yield made


@contextlib.contextmanager
def owners_image(url: str, base: str, name: str) -> Iterator[str]:
    """An image that lies at the engine under this name; its id."""
    engine_api.tag_image(url, base, name)
    try:
        yield engine_api.get(url, f"/images/{name}/json")["Id"]
    finally:
        engine_api.delete(url, f"/images/{name}")


def access(folder: Path, *hosts: str, images: tuple[str, ...] = (), logins: tuple[str, ...] = ()) -> pulled.Access:
    rules = image_access.Rules(tuple(map(image_access.pattern, images)), hosts, logins)
    return pulled.Access(rules, pulled.Pulled(folder / "pulled"))


def _bench(
    url: str, folder: Path, allowed: pulled.Access, **terms: object
) -> contextlib.AbstractAsyncContextManager[attempts.Bench]:
    patience = pulling.Terms(seconds=60.0, stall_seconds=30.0, pauses=(), **terms)  # type: ignore[arg-type]
    supply = docker_executor.Supply(ours=ledger.Ledger(folder / "ours"), pulls=patience)
    return attempts.docker_bench(url, "none", folder, supply=supply, access=allowed)


def _id(url: str, name: str) -> str:
    return str(engine_api.get(url, f"/images/{name}/json")["Id"])


async def test_an_image_of_the_owners_is_not_run_however_it_is_spelled_unless_it_is_listed(
    docker_url: str, busybox_image: str, faults: registry.Faults, tmp_path: Path
) -> None:
    name = f"{faults.host}/secret-{uuid.uuid4().hex[:8]}:1"
    with owners_image(docker_url, busybox_image, name) as image_id:
        digits = image_id.removeprefix("sha256:")
        repository = name.rpartition(":")[0]
        spellings = [name, digits, digits[:12], f"sha256:{digits[:12]}"]
        spellings += [f"docker.io/library/{digits[:12]}", f"{repository}@{image_id}"]
        async with _bench(docker_url, tmp_path, access(tmp_path, faults.host)) as made:
            for spelling in spellings:
                ended = await made.shell("echo secret", image=spelling)
                assert (ended.reason, ended.logs.text) == (outcome.Reason.IMAGE_UNAVAILABLE, b""), spelling
            assert "allowed_images" in (await made.shell("true", image=name)).error
            assert not made.executor.images
        for listed in (name, f"{faults.host}/secret-*", image_id):
            async with _bench(docker_url, tmp_path, access(tmp_path, images=(listed,))) as made:
                assert (await made.shell("echo here", image=name)).logs.text == b"here\n"


async def test_a_registry_decides_what_a_name_is_and_the_owners_image_keeps_it(
    docker_url: str, busybox_image: str, there: str, faults: registry.Faults, tmp_path: Path
) -> None:
    image = registry.put(there, f"t{uuid.uuid4().hex[:12]}")
    name = image.name.replace(there, faults.host)
    with owners_image(docker_url, busybox_image, name) as image_id:
        async with _bench(docker_url, tmp_path, access(tmp_path, faults.host)) as made:
            ended = await made.shell("cat /data/0 | busybox wc -c", image=name)
            assert ended.logs.text.strip() == b"100000"  # the registry's
            assert ended.image_digest == image.digest
            assert _id(docker_url, name) == image_id
        engine_api.delete(docker_url, f"/images/{name.rpartition(':')[0]}@{image.digest}")


async def test_what_was_pulled_for_tasks_is_known_after_a_restart_without_its_registry(
    docker_url: str, there: str, tmp_path: Path, busybox_image: str
) -> None:
    image = registry.put(there, f"t{uuid.uuid4().hex[:12]}")
    async with registry.before(there) as faults:
        name, host = image.name.replace(there, faults.host), faults.host
        async with _bench(docker_url, tmp_path, access(tmp_path, host)) as made:
            assert (await made.shell("echo first", image=name)).logs.text == b"first\n"
    try:
        async with _bench(docker_url, tmp_path, access(tmp_path, host)) as made:
            assert (await made.shell("echo again", image=name)).logs.text == b"again\n"
        engine_api.tag_image(docker_url, busybox_image, name)  # the name moves: it is no longer what was pulled
        async with _bench(docker_url, tmp_path, access(tmp_path, host)) as made:
            ended = await made.shell("true", image=name)
            assert ended.reason is outcome.Reason.IMAGE_UNAVAILABLE
    finally:
        engine_api.delete(docker_url, f"/images/{name}")
        engine_api.delete(docker_url, f"/images/{_untagged(docker_url, host)}")


def _untagged(url: str, host: str) -> str:
    images = engine_api.get(url, "/images/json")
    return str(next(d for image in images for d in image["RepoDigests"] or () if d.startswith(host)))


async def test_the_owners_logins_are_used_at_no_registry_that_is_not_listed(
    docker_url: str, there: str, faults: registry.Faults, tmp_path: Path
) -> None:
    image = registry.put(there, f"t{uuid.uuid4().hex[:12]}")
    faults.credentials = "owner:s3cret"
    auth = {"auths": {faults.host: {"auth": base64.b64encode(b"owner:s3cret").decode()}}}
    (tmp_path / "config.json").write_text(json.dumps(auth))
    name = image.name.replace(there, faults.host)
    for allowed in (access(tmp_path, faults.host), access(tmp_path, faults.host, logins=("elsewhere.example",))):
        async with _bench(docker_url, tmp_path, allowed, config=tmp_path) as made:
            ended = await made.shell("true", image=name)
            assert ended.reason is outcome.Reason.IMAGE_UNAVAILABLE
            assert "registry_logins" in ended.error
    async with _bench(docker_url, tmp_path, access(tmp_path), config=tmp_path) as made:
        ended = await made.shell("true", image=name)
        assert "image_registries" in ended.error  # an address is no public registry
    assert not engine_api.has_image(docker_url, name)


async def test_a_registry_cannot_name_an_image_that_it_has_no_byte_of(
    docker_url: str, busybox_image: str, tmp_path: Path
) -> None:
    """A manifest whose configuration is the owner's image: the engine takes what it has and asks for nothing more."""
    image_id = _id(docker_url, busybox_image)
    async with _manifest_of(docker_url, image_id) as host:
        name = f"{host}/attack:1"
        async with _bench(docker_url, tmp_path, access(tmp_path, host)) as made:
            for _ in range(2):
                ended = await made.shell("echo secret", image=name)
                assert (ended.reason, ended.logs.text) == (outcome.Reason.IMAGE_UNAVAILABLE, b"")
                assert "lay here before" in ended.error
        assert not engine_api.has_image(docker_url, name)
        assert _id(docker_url, busybox_image) == image_id


@contextlib.asynccontextmanager
async def _manifest_of(url: str, image_id: str) -> AsyncIterator[str]:
    """A registry that has one manifest, and no blob."""
    layer = {"mediaType": registry.LAYER, "size": 3, "digest": f"sha256:{'1' * 64}"}
    config = {"mediaType": registry.CONFIG, "size": 1000, "digest": image_id}
    body = json.dumps({"schemaVersion": 2, "mediaType": registry.MANIFEST, "config": config, "layers": [layer]})

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.Response:
        if "/manifests/" in request.path:
            return aiohttp.web.Response(body=body.encode(), content_type=registry.MANIFEST)
        return aiohttp.web.Response(status=200 if request.path == "/v2/" else 404)

    app = aiohttp.web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = aiohttp.web.AppRunner(app, access_log=None)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, test_network.host_of(url), 0).start()
    try:
        yield "{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()
