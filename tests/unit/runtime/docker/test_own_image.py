"""Which image is ours: judged by its content, not by its name."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from hivemind_worker import errors
from hivemind_worker.runtime.docker import hardening, own_image
from hivemind_worker.tasks import names


def _inspect(**config: Any) -> dict[str, Any]:
    layer = f"sha256:{hashlib.sha256(own_image.archive()).hexdigest()}"
    labels = {hardening.ROLE_LABEL: own_image.ROLE}
    return {"Id": "sha256:1", "Config": {"Labels": labels, **config}, "RootFS": {"Layers": [layer]}}


def test_the_layer_decides() -> None:
    assert own_image.is_ours(_inspect())
    assert own_image.is_ours(_inspect(Env=None, Volumes={}))
    assert not own_image.is_ours({**_inspect(), "RootFS": {"Layers": ["sha256:2"]}})
    assert not own_image.is_ours({})


@pytest.mark.parametrize(
    "config",
    [{"Labels": None}, {"Volumes": {"/proc": {}}}, {"Env": ["LD_PRELOAD=/x"]}, {"Healthcheck": {"Test": ["x"]}}],
)
def test_an_image_that_says_more_is_not_ours(config: dict[str, Any]) -> None:
    assert not own_image.is_ours(_inspect(**config))


def test_no_task_can_name_it() -> None:
    with pytest.raises(errors.InvalidTask):
        names.image(own_image.REFERENCE)
