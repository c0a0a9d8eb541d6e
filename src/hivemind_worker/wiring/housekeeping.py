"""Builds what keeps a machine tidy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from hivemind_worker.runtime.docker import engine as engines
from hivemind_worker.runtime.docker import ledger
from hivemind_worker.settings import schema
from hivemind_worker.worker.housekeeping import disks, environments, images, logs, place, policy, sweep, workspaces

IMAGES_FOLDER = "images"
"""Where in the cache folder it stands which images we fetched and made, and when each was used last."""

LOG_NAMES = ("worker", "pool", "up")
"""The names that the services log under, each a file in the log folder."""


def build_stock(settings: schema.Settings, pinned: Callable[[], Collection[str]] | None = None) -> list[place.Place]:
    """Return the places of what tasks need beside themselves: images, environments, packages.

    ``pinned`` tells the images that are never removed; without it those are that the settings name.
    """
    its, cache = settings.docker, settings.storage.cache_dir
    places: list[place.Place] = [environments.Environments(cache)]
    if its.docker_enabled and its.isolation is not schema.Isolation.SANDBOX:
        engine = engines.Engine(its.docker_host)
        places.insert(
            0, images.Images(engine, ledger.Ledger(cache / IMAGES_FOLDER), pinned or (lambda: pinned_images(settings)))
        )
    return places


def build(
    settings: schema.Settings,
    more: Sequence[place.Place] = (),
    pinned: Callable[[], Collection[str]] | None = None,
) -> sweep.Housekeeping:
    """Return what keeps this machine tidy, the places given included. ``pinned`` as for :func:`build_stock`."""
    its, kept = settings.cleanup, settings.storage
    places: list[place.Place] = [
        *build_stock(settings, pinned),
        workspaces.Workspaces(kept.temp_dir),
        logs.Logs(kept.log_dir, LOG_NAMES),
        *more,
    ]
    return sweep.Housekeeping(
        places,
        policy.of(its),
        watch=[
            disks.of(folder) for folder in (kept.state_dir, kept.work_dir, kept.cache_dir, kept.temp_dir, kept.log_dir)
        ],
        interval=its.cleanup_interval,
        enabled=its.cleanup_enabled,
    )


def pinned_images(settings: schema.Settings) -> frozenset[str]:
    """Return the images that are never removed, as the settings name them."""
    return frozenset((*settings.cleanup.keep_images, *settings.images.preload_images))
