"""The few calls to a Docker engine that scripts need, over its socket with the standard library alone."""

from __future__ import annotations

import http.client
import json
import os
import socket
import urllib.parse
from pathlib import Path
from typing import Any

DEFAULT = "unix:///var/run/docker.sock"


class EngineRefusedError(Exception):
    """The engine answered, and the answer was no."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def address() -> str:
    """Where an engine would be: DOCKER_HOST, or the usual socket."""
    return os.environ.get("DOCKER_HOST") or DEFAULT


def answers(engine: str, seconds: float = 5) -> bool:
    """Whether an engine is there and answers within so many seconds."""
    try:
        _call(engine, "GET", "/_ping", timeout=seconds)
    except (OSError, http.client.HTTPException, EngineRefusedError, ValueError):
        return False
    return True


def get(engine: str, path: str, **query: str) -> Any:
    """What the engine answers to a question.

    Raises:
        EngineRefusedError: it refused to say.
    """
    return json.loads(_call(engine, "GET", f"{path}?{urllib.parse.urlencode(query)}"))


def delete(engine: str, path: str) -> None:
    """Have the engine remove something.

    Raises:
        EngineRefusedError: it would not.
    """
    _call(engine, "DELETE", path)


def has_image(engine: str, name: str) -> bool:
    """Whether the engine holds an image of this name."""
    try:
        _call(engine, "GET", f"/images/{name}/json")
    except EngineRefusedError:
        return False
    return True


def tag_image(engine: str, name: str, also: str) -> None:
    """Give an image a second name."""
    repository, tag = also.rsplit(":", 1)
    query = urllib.parse.urlencode({"repo": repository, "tag": tag})
    _call(engine, "POST", f"/images/{name}/tag?{query}")


def import_image(engine: str, archive: Path, name: str) -> None:
    """Make an image of a root file system in a tar archive.

    Raises:
        EngineRefusedError: the engine could not make it.
    """
    repository, tag = name.rsplit(":", 1)
    query = urllib.parse.urlencode({"fromSrc": "-", "repo": repository, "tag": tag})
    with archive.open("rb") as body:
        headers = {"Content-Type": "application/x-tar", "Content-Length": str(archive.stat().st_size)}
        _last_line(_call(engine, "POST", f"/images/create?{query}", body=body, headers=headers, timeout=300))


def pull_image(engine: str, name: str, seconds: float = 600) -> None:
    """Have the engine fetch an image from its registry.

    Raises:
        EngineRefusedError: it could not.
    """
    repository, tag = name.rsplit(":", 1)
    query = urllib.parse.urlencode({"fromImage": repository, "tag": tag})
    _last_line(_call(engine, "POST", f"/images/create?{query}", timeout=seconds))


def _last_line(answer: bytes) -> None:
    # The engine says 200 first and streams its progress; a failure is the last thing it says.
    lines = [json.loads(line) for line in answer.splitlines() if line.strip()]
    if lines and "error" in lines[-1]:
        raise EngineRefusedError(lines[-1]["error"])


def _call(
    engine: str,
    method: str,
    path: str,
    *,
    body: Any = None,
    headers: dict[str, str] | None = None,
    timeout: float = 60,
) -> bytes:
    parts = urllib.parse.urlsplit(engine)
    connection: http.client.HTTPConnection
    if parts.scheme == "unix":
        connection = _UnixConnection(parts.path, timeout)
    elif parts.scheme in ("tcp", "http"):
        connection = http.client.HTTPConnection(parts.hostname or "localhost", parts.port or 2375, timeout=timeout)
    else:
        raise ValueError(f"an engine at {engine!r} cannot be reached from here: unix:// and tcp:// can")
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        text = answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(
            f"{method} {path.partition('?')[0]}: the engine broke off its answer ({error!r})"
        ) from error
    finally:
        connection.close()
    if answer.status >= http.HTTPStatus.BAD_REQUEST:
        raise EngineRefusedError(
            f"{method} {path.partition('?')[0]}: {answer.status} {text.decode(errors='replace').strip()}"
        )
    return text
