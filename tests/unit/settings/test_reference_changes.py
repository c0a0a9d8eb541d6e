"""What has changed between two readings of the settings, and which of it a running service takes over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hivemind_worker.settings import reference, schema

WORDS: Final[Mapping[str, object]] = {
    "log_level": "error",
    "labels": {"a": "b"},
    "default_image": "other:1",
    "accept_missing_defences": ("root",),
}


def settings(**groups: Mapping[str, object]) -> schema.Settings:
    return schema.Settings.model_validate(groups)


def another(value: Any) -> object:
    """A value of the same type that is not this one."""
    if isinstance(value, bool):
        return not value
    return ("an:1",) if isinstance(value, tuple) else type(value)(50)


def test_only_what_is_live_is_taken_over_and_the_rest_stays() -> None:
    old = settings(limits={"task_timeout": 10, "drain_timeout": 5}, node={"poll_wait_seconds": 20})
    new = settings(limits={"task_timeout": 11, "drain_timeout": 5}, node={"poll_wait_seconds": 21})
    assert [each.key for each in reference.changed(old, new)] == ["poll_wait_seconds", "task_timeout"]
    now = reference.adopted(old, new)
    assert (now.limits.task_timeout, now.limits.drain_timeout, now.node.poll_wait_seconds) == (11, 5, 20)
    assert [each.key for each in reference.changed(now, new)] == ["poll_wait_seconds"]


def test_nothing_changes_where_nothing_has() -> None:
    assert reference.changed(settings(), settings()) == []
    assert reference.adopted(settings(), settings()) == settings()


def test_every_live_setting_is_taken_over() -> None:
    live = [each for each in reference.settings() if each.live]
    assert len(live) > 20
    for each in live:
        value = reference.value(settings(), each)
        other = WORDS.get(each.key) or another(value)
        new = settings(**{each.group: {each.field: other}})
        assert reference.value(reference.adopted(settings(), new), each) == other, each.key
