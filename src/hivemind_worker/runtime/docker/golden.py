"""Whether the engine made the container that it was told to make: `inspect` compared with what was sent. Pure.

Whatever was not asked for must be off or empty, options that this file does not know included.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

_DEFAULTS: Final[Mapping[str, frozenset[Any]]] = {
    "IpcMode": frozenset({"private", "shareable"}),
    "CgroupnsMode": frozenset({"host", "private"}),
    "NetworkMode": frozenset({"default", "bridge"}),
    "ShmSize": frozenset({64 * 1024 * 1024}),
    "MemorySwappiness": frozenset({-1, 60}),
    "ConsoleSize": frozenset({"[0, 0]"}),
    "Isolation": frozenset({"default"}),
    "OomScoreAdj": frozenset({100}),
}
"""What engines fill in of themselves where nothing is said, and which is no less safe than nothing."""

_HIDDEN: Final = frozenset({"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"})
_READ_ONLY: Final = frozenset({"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"})
_PATHS: Final[Mapping[str, frozenset[str]]] = {"MaskedPaths": _HIDDEN, "ReadonlyPaths": _READ_ONLY}
"""Lists that every engine fills in; these must be among them."""

_OF_IMAGES: Final = frozenset({"Env", "Labels", "ExposedPorts", "Volumes", "OnBuild", "Shell", "ArgsEscaped"})
"""What an image may add to a container's configuration. Volumes are covered by ours, which the mounts show."""

_TEXT: Final = 80


def differences(
    body: Mapping[str, Any],
    inspected: Mapping[str, Any],
    runtime: str = "",
    environment: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Return what the engine made otherwise than ``body`` says, each in words; empty where all is as it was asked.

    ``runtime``: the engine's own, where that is known and the body names none. ``environment``: the image's variables,
    where they are known: no others may be there.
    """
    host, config = inspected.get("HostConfig") or {}, inspected.get("Config") or {}
    wanted = body.get("HostConfig") or {}
    return (
        *_host(wanted, host, runtime),
        *_config(body, config, environment),
        *_mounts(wanted, inspected.get("Mounts") or ()),
        *_rest(body, inspected),
    )


def _host(wanted: Mapping[str, Any], host: Mapping[str, Any], runtime: str) -> Iterator[str]:
    if not host:
        yield "the engine does not say how the container is fenced"
        return
    for key in sorted({*wanted, *host, *_PATHS}):
        actual = host.get(key)
        if key in _PATHS:
            if lacking := _PATHS[key] - set(actual or ()):
                yield f"{key} lacks {', '.join(sorted(lacking))}"
        elif key == "Runtime" and not wanted.get(key):
            if runtime and actual != runtime:
                yield f"Runtime is {_short(actual)}, not {runtime}"
        elif key == "CapAdd":  # newer engines say CAP_KILL where KILL was asked for
            rights = [str(name).removeprefix("CAP_") for name in actual or ()]
            yield from _unequal(key, wanted.get(key), rights)
        elif key in wanted:
            yield from _unequal(key, wanted[key], actual)
        elif not _is_neutral(actual) and not _is_default(key, actual):
            yield f"{key} is {_short(actual)}, and was not asked for"


def _config(body: Mapping[str, Any], config: Mapping[str, Any], environment: Mapping[str, str] | None) -> Iterator[str]:
    if environment is not None:
        known = {*(f"{name}={value}" for name, value in environment.items()), *(body.get("Env") or ())}
        names = sorted(pair.partition("=")[0] for pair in {*(config.get("Env") or ())} - known)
        if names:
            yield f"Env has {_short(', '.join(names))}, and was not asked for"
    for key in sorted({*body, *config} - {"HostConfig", "NetworkingConfig", "Image"}):
        wanted, actual = body.get(key), config.get(key)
        if key == "Labels":
            lacking = {name: value for name, value in (wanted or {}).items() if (actual or {}).get(name) != value}
            if lacking:
                yield f"Labels lack {', '.join(sorted(lacking))}"
        elif key in _OF_IMAGES:
            if lost := set(wanted or ()) - set(actual or ()):
                yield f"{key} lacks {_short(sorted(lost))}"
        elif key == "Healthcheck" and wanted:
            # An image's times and counts are merged into ours; with NONE as the test they say nothing.
            yield from _unequal(key, wanted["Test"], (actual or {}).get("Test"))
        elif key in body:
            yield from _unequal(key, wanted, actual)
        elif not _is_neutral(actual) and key != "Hostname":  # the engine takes one from the container's id
            yield f"{key} is {_short(actual)}, and was not asked for"


def _mounts(wanted: Mapping[str, Any], mounts: Any) -> Iterator[str]:
    asked = {mount["Target"]: mount for mount in wanted.get("Mounts") or ()}
    seen = {}
    for mount in mounts:
        place = str(mount.get("Destination"))
        if mount.get("Type") == "tmpfs" and place in (wanted.get("Tmpfs") or {}):
            continue
        seen[place] = mount
        expected = asked.get(place)
        if expected is None:
            yield f"{mount.get('Type')} {_short(mount.get('Source'))} is mounted at {place}, and was not asked for"
        elif mount.get("Type") != expected["Type"] or mount.get("Name") != expected["Source"]:
            yield f"{mount.get('Type')} {_short(mount.get('Source'))} is mounted at {place}, not {expected['Source']}"
        elif bool(mount.get("RW")) is bool(expected.get("ReadOnly")):
            yield f"{place} is {'writable' if mount.get('RW') else 'read-only'}"
    if missing := sorted(set(asked) - set(seen)):
        yield f"not mounted: {', '.join(missing)}"


def _rest(body: Mapping[str, Any], inspected: Mapping[str, Any]) -> Iterator[str]:
    image = str(body.get("Image", ""))
    if image.startswith("sha256:") and inspected.get("Image") != image:
        yield f"it is made of image {_short(inspected.get('Image'))}"
    program = [*(body.get("Entrypoint") or ()), *(body.get("Cmd") or ())]
    if program and [inspected.get("Path"), *(inspected.get("Args") or ())] != program:
        yield f"it runs {_short([inspected.get('Path'), *(inspected.get('Args') or ())])}"
    if inspected.get("ExecIDs"):
        yield "something else runs in it"
    if str(inspected.get("AppArmorProfile") or "") == "unconfined":
        yield "AppArmorProfile is unconfined"
    network = (body.get("HostConfig") or {}).get("NetworkMode")
    networks = (inspected.get("NetworkSettings") or {}).get("Networks") or {}
    others = set(networks) - {"none"} if network == "none" else set()
    if others or len(networks) > 1:
        yield f"it is in the networks {', '.join(sorted(networks))}"


def _unequal(key: str, wanted: Any, actual: Any) -> Iterator[str]:
    want, have = _plain(wanted), _plain(actual)
    if want == have:
        return
    if isinstance(want, list) and isinstance(have, list | None):
        lacking = [each for each in want if each not in (have or ())]
        extra = [each for each in have or () if each not in want]
        words = [f"lacks {_short(each)}" for each in lacking] + [f"has {_short(each)}" for each in extra]
        yield f"{key} {', '.join(words)}"
    else:
        yield f"{key} is {_short(actual)}, not {_short(wanted) or 'empty'}"


def _plain(value: Any) -> Any:
    """The value without what is off or empty in it, its lists in one order; None for nothing."""
    if isinstance(value, Mapping):
        return {key: plain for key, each in value.items() if (plain := _plain(each)) is not None} or None
    if isinstance(value, list | tuple):
        return sorted((_plain(each) for each in value), key=repr) or None
    return None if _is_neutral(value) else value


def _is_neutral(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_neutral, value.values()))
    return value is None or value is False or value in ("", 0, [], ())


def _is_default(key: str, value: Any) -> bool:
    text = str(value) if isinstance(value, list) else value
    return key in _DEFAULTS and text in _DEFAULTS[key]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"
