"""From what a worker knows to what its page shows: a snapshot and a health report become texts and lines. Pure.

Nothing here is markup. Task ids, errors and messages come from strangers: the page escapes them, its script sets them
as text.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, Final

from hivemind_worker.runtime.capsule import accounts
from hivemind_worker.web.dashboard import words
from hivemind_worker.worker.machine import monitor, status

WIDTH: Final = 300
HEIGHT: Final = 60
"""Of a chart, in its own units: ten minutes wide, 100 % high."""

GOOD, HELD, BAD, PLAIN = "good", "held", "bad", "plain"
"""The tones of a state or a row: each is told in words too, never by its colour alone."""


def view(now: status.Snapshot, report: Mapping[str, Any], at: dt.datetime, language: str) -> dict[str, Any]:
    """Return all that the page shows, as JSON: texts in ``language``, lines as points of an SVG.

    ``report`` is a health report; ``at`` the time of this look, with its zone.
    """
    say = words.TEXTS[language]
    ended = [_ended(each, at, say) for each in now.last_ended]
    running = [_running(each, say) for each in now.attempts]
    return {
        "node": now.node_id,
        "state": _state(now, report, say),
        "checks": [_check(name, check, say) for name, check in report["checks"].items()],
        "charts": _charts(now, at, say),
        "running": running,
        "none_running": not running,
        "ended": ended,
        "none_ended": not ended,
        "fence": say.get(f"fence_{now.isolation}", now.isolation),
        "defences": [_defence(each.check, each.in_force, each.why, each.fix, say) for each in now.defences],
        "about": _about(now, say),
        "troubles": [
            _row(PLAIN, _ago(each.at, at, say), each.task_id, each.said) for each in reversed(now.last_errors)
        ],
        "none_troubles": not now.last_errors,
    }


def _state(now: status.Snapshot, report: Mapping[str, Any], say: Mapping[str, str]) -> dict[str, str]:
    wrong = [say.get(name, name) for name, check in report["checks"].items() if check["status"] != "healthy"]
    if not report["live"]:
        wrong.append(say["still"])
    if wrong:
        return {"tone": BAD, "text": say["bad"].format(what=", ".join(wrong))}
    if not report["ready"]:
        return {"tone": HELD, "text": say["held"].format(why=report["not_ready_because"])}
    return {"tone": GOOD, "text": say["working"].format(count=len(now.attempts)) if now.attempts else say["good"]}


def _row(tone: str, *cells: str) -> dict[str, Any]:
    return {"tone": tone, "cells": list(cells)}


def _check(name: str, check: Mapping[str, str], say: Mapping[str, str]) -> dict[str, Any]:
    good = check["status"] == "healthy"
    return _row(GOOD if good else BAD, say.get(name, name), say["ok" if good else "not_ok"], check["message"])


def _defence(what: str, in_force: bool, why: str, fix: str, say: Mapping[str, str]) -> dict[str, Any]:  # noqa: FBT001
    said = "; ".join(each for each in (why, fix) if each)
    return _row(GOOD if in_force else HELD, what, say["in_force" if in_force else "not_in_force"], said)


def _running(each: status.AttemptStatus, say: Mapping[str, str]) -> dict[str, Any]:
    used, cpu, memory, processes = each.usage, "", "", ""
    if used is not None:
        cpu = "" if used.cpu_percent is None else f"{used.cpu_percent:.0f} %"
        memory = _memory(used, say)
        processes = "" if used.now.processes_now is None else str(used.now.processes_now)
    phase = say.get(f"phase_{each.phase}", say.get(each.phase, each.phase))
    return _row(PLAIN, each.task_id, str(each.attempt), phase, span(each.seconds, say), cpu, memory, processes)


def _memory(used: accounts.Usage, say: Mapping[str, str]) -> str:
    if used.now.memory_bytes is None:
        return ""
    part = amount(used.now.memory_bytes)
    return say["of"].format(part=part, whole=amount(used.memory_limit_bytes)) if used.memory_limit_bytes else part


def _ended(each: status.EndedStatus, at: dt.datetime, say: Mapping[str, str]) -> dict[str, Any]:
    tone = {"completed": GOOD, "failed": BAD}.get(str(each.status), PLAIN)
    word = say.get(str(each.status), str(each.status))
    when = _ago(each.at, at, say)
    return _row(tone, each.task_id, str(each.attempt), word, each.reason, span(each.seconds, say), when, each.error)


def _charts(now: status.Snapshot, at: dt.datetime, say: Mapping[str, str]) -> list[dict[str, Any]]:
    machine, recent = now.machine, now.recent
    memory, disk = machine.get("memory", {}), machine.get("disk", {})
    whole = [
        say["cores"].format(count=machine["cpu"]["count"]) if machine else "",
        say["of_bytes"].format(total=amount(memory["total"])) if memory else "",
        say["of_bytes"].format(total=amount(disk["total"])) if disk else "",
    ]
    lines = [
        [(each.timestamp, each.cpu_percent) for each in recent],
        [(each.timestamp, each.memory_percent) for each in recent],
        [(each.timestamp, each.disk_percent) for each in recent if each.disk_percent is not None],
    ]
    return [
        _chart(name, line, of, at.timestamp(), say)
        for name, line, of in zip(("cpu", "memory", "disk"), lines, whole, strict=True)
    ]


def _chart(name: str, line: list[tuple[float, float]], whole: str, at: float, say: Mapping[str, str]) -> dict[str, Any]:
    if not line:
        return {"key": name, "name": say[name], "now": say["unknown"], "range": "", "of": whole, "line": "", "area": ""}
    values = [value for _, value in line]
    minutes = max(1, round((at - line[0][0]) / 60))
    told = say["range"].format(low=f"{min(values):.0f}", high=f"{max(values):.0f} %", minutes=minutes)
    drawn = points(line, at)
    first, last = drawn[0].partition(",")[0], drawn[-1].partition(",")[0]
    area = " ".join((f"{first},{HEIGHT}", *drawn, f"{last},{HEIGHT}"))
    return {"key": name, "name": say[name], "now": f"{values[-1]:.0f} %", "range": told, "of": whole,
            "line": " ".join(drawn), "area": area}  # fmt: skip


def points(line: Iterable[tuple[float, float]], at: float) -> list[str]:
    """Return (timestamp, percent) pairs as points of a chart that ends at ``at``, as ``x,y`` each."""
    return [
        f"{min(max(WIDTH * (1 - (at - when) / monitor.REMEMBERED_SECONDS), 0), WIDTH):.1f},"
        f"{HEIGHT * (1 - min(max(percent, 0), 100) / 100):.1f}"
        for when, percent in line
    ]


def _about(now: status.Snapshot, say: Mapping[str, str]) -> list[dict[str, Any]]:
    pool = now.pool if now.connected else f"{now.pool} ({say['not_connected']}: {now.trouble})".replace(": )", ")")
    own, all_of = now.reserved, now.capacity
    given = [
        f"{say['cpu']} {say['of'].format(part=f'{own.cpu_cores:g}', whole=f'{all_of.cpu_cores:g}')}",
        f"{say['memory']} {say['of'].format(part=amount(own.memory_bytes), whole=amount(all_of.memory_bytes))}",
        f"{say['disk']} {say['of'].format(part=amount(own.disk_bytes), whole=amount(all_of.disk_bytes))}",
    ]
    if all_of.gpus:
        given.append(f"{say['gpus']} {say['of'].format(part=f'{own.gpus:g}', whole=f'{all_of.gpus:g}')}")
    return [
        _row(PLAIN, say["pool"], pool),
        _row(PLAIN, say["at_once"], str(now.max_concurrent_tasks) if now.max_concurrent_tasks else say["no_limit"]),
        _row(PLAIN, say["given"], " · ".join(given)),
        _row(PLAIN, say["count"], str(now.ended)),
    ]


def amount(count: float) -> str:
    """Return a number of bytes for people, in powers of 1,024."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB" if count < 1024 else f"{count / 1024:.1f} TiB"


def span(seconds: float, say: Mapping[str, str], digits: int = 1) -> str:
    """Return a time for people, in seconds, minutes or hours; small numbers with so many decimals."""
    if seconds < 119.5:
        return say["seconds"].format(count=f"{max(seconds, 0):.{digits if seconds < 9.95 else 0}f}")
    if seconds < 7170:
        return say["minutes"].format(count=f"{seconds / 60:.0f}")
    return say["hours"].format(count=f"{seconds / 3600:.{digits}f}")


def _ago(then: dt.datetime, at: dt.datetime, say: Mapping[str, str]) -> str:
    return say["ago"].format(span=span((at - then).total_seconds(), say, 0))
