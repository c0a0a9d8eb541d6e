"""From the settings to a way out: whether this node has one, and which."""

from __future__ import annotations

from hivemind_worker.runtime.egress import gateway
from hivemind_worker.runtime.environments import sources
from hivemind_worker.settings import egress, schema


def way_out(settings: schema.Settings) -> gateway.Gateway | None:
    """The filter through which tasks reach what the owner lists; None where that is nothing. Raises BadSettings."""
    if not settings.docker.allow_egress or not settings.egress.allow:
        return None
    guarded = (settings.node.node_pool_address, settings.docker.docker_host)
    return gateway.Gateway(gateway.terms(settings.egress, guarded, sources.of(settings.packages).certificates))


def bridge(settings: schema.Settings) -> str:
    """The engine's network for tasks with egress, empty unless the owner wants that instead of the filter."""
    unfiltered = settings.docker.allow_egress and settings.egress.path is egress.Path.BRIDGE
    return settings.docker.docker_network if unfiltered else ""


def is_offered(settings: schema.Settings, isolation: str) -> bool:
    """Whether tasks that ask for egress may come; only containers can be put on a bridge."""
    listed = settings.docker.allow_egress and bool(settings.egress.allow)
    return listed or (isolation == "docker" and bool(bridge(settings)))
