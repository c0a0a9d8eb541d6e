"""The image in which our own programs run: imported from no registry, made again when it is gone or another's."""

from __future__ import annotations

import uuid
from pathlib import Path

import attempts
import pytest

from hivemind_worker.runtime import trial
from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import own_image
from hivemind_worker.settings import schema

pytestmark = pytest.mark.docker


async def test_it_is_made_kept_and_made_again_where_another_has_its_name(docker_url: str, busybox_image: str) -> None:
    engine, name = engines.Engine(docker_url), f"hivemind-test/own-{uuid.uuid4().hex[:8]}"
    await engine.connect()
    try:
        made = await own_image.ensure(engine, name)
        assert await own_image.ensure(engine, name) == made, "it is kept"
        there = await engine.image(busybox_image)
        tag = {"repo": name, "tag": own_image.TAG}
        await engine._empty("tag an image", f"images/{there['Id']}/tag", "POST", params=tag)
        assert (await own_image.ensure(engine, name)).id != there["Id"], "another image of that name is not trusted"
        await engine.remove_image(made.id)
    finally:
        await engine.remove_image(f"{name}:{own_image.TAG}")
        await engine.close()


async def test_a_trial_needs_no_image_of_anybody_and_no_pull(docker_url: str, tmp_path: Path) -> None:
    policy = schema.PullPolicy.NEVER
    async with attempts.docker_bench(docker_url, "no/such", tmp_path, policy=policy) as bench:
        assert await trial.fault(bench.executor) == ""
        assert bench.executor.images == (), "the pool is not told of it"
