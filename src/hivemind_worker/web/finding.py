"""Where a worker or pool answers over HTTP: one small file each in its state folder, read by `hivemind health`."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hivemind_worker.filesystem import private_dir, private_file

WORKER = "worker-http"
POOL = "pool-http"


@contextlib.contextmanager
def told(note: Path, address: str) -> Iterator[None]:
    """Have ``note`` say ``address`` within this block."""
    part = note.with_name(f"{note.name}.part")
    private_dir.make(note.parent)
    private_file.write(part, f"{address}\n")
    part.replace(note)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink()


def addresses(state_dir: Path) -> Mapping[str, str]:
    """Return where the worker and the pool of this folder say that they answer, by note; none where none runs."""
    found = {}
    for name in (WORKER, POOL):
        with contextlib.suppress(OSError):
            found[name] = (state_dir / name).read_text(encoding="ascii").strip()
    return found


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered: ``trouble`` says why there is no report."""

    report: Mapping[str, Any] | None
    trouble: str = ""


def ask(address: str, seconds: float) -> Answer:
    """Ask a health report of whoever answers at host:port. Blocks, for so long at most; never raises for its answer."""
    host, _, port = address.rpartition(":")
    try:
        connection = http.client.HTTPConnection(_reachable(host.strip("[]")), int(port), timeout=seconds)
        with contextlib.closing(connection):
            connection.request("GET", "/healthz", headers={"Accept": "application/json"})
            answer = connection.getresponse()
            body = answer.read(1 << 20)
        report = json.loads(body)
    except (OSError, http.client.HTTPException) as error:
        said = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        return Answer(None, f"nobody answers at {address}: {said or type(error).__name__}")
    except ValueError:
        return Answer(None, f"{address} answers, but with no health report")
    if not isinstance(report, dict) or "status" not in report:
        return Answer(None, f"{address} answers, but with no health report")
    return Answer(report)


def _reachable(host: str) -> str:
    """Whoever listens everywhere is asked here."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (not bound, only compared)
