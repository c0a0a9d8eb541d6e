"""Whether a node offers egress, and by which way, as its settings say."""

from __future__ import annotations

from collections.abc import Mapping

import pydantic
import pytest

from hivemind_worker.runtime.egress import setup
from hivemind_worker.settings import schema


def settings(allow_egress: bool = True, **egress: object) -> schema.Settings:
    groups: Mapping[str, object] = {"docker": {"allow_egress": allow_egress, "docker_network": "net"}, "egress": egress}
    return schema.Settings.model_validate(groups)


def test_by_default_nothing_gets_out() -> None:
    for isolation in ("docker", "sandbox"):
        assert not setup.is_offered(schema.Settings(), isolation)
        assert not setup.is_offered(settings(), isolation), "nothing listed, nothing reached"
        assert not setup.is_offered(settings(allow_egress=False, allow="public", path="bridge"), isolation)
    for silent in (schema.Settings(), settings(), settings(allow_egress=False, allow="public", path="bridge")):
        assert setup.way_out(silent) is None
        assert setup.bridge(silent) == ""


def test_what_is_listed_is_offered_on_every_driver() -> None:
    listed = settings(allow="pypi.org, 192.0.2.7:5432")
    assert all(setup.is_offered(listed, isolation) for isolation in ("docker", "sandbox"))
    assert setup.bridge(listed) == ""
    way = setup.way_out(listed)
    assert way is not None
    assert [rule.text for rule in way.terms.policy.allow] == ["pypi.org", "192.0.2.7:5432"]
    assert listed.node.node_pool_address in way.terms.guarded


def test_a_bridge_is_the_owners_explicit_word_and_the_engines_alone() -> None:
    bridged = settings(path="bridge")
    assert setup.bridge(bridged) == "net"
    assert setup.is_offered(bridged, "docker")
    assert not setup.is_offered(bridged, "sandbox")


@pytest.mark.parametrize("entry", ["10.0.0.1", "169.254.169.254:80", "http://a.org", "a.org:0", "2130706433:80"])
def test_entries_that_cannot_be_meant_are_refused_as_settings(entry: str) -> None:
    with pytest.raises(pydantic.ValidationError):
        settings(allow=entry)
