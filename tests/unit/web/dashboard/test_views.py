from __future__ import annotations

import dataclasses
import datetime as dt
import json
import string
from typing import Any

import pytest
from snapshots import AT, NOW, SNAPSHOT

from hivemind_worker.runtime import executor
from hivemind_worker.runtime.capsule import accounts
from hivemind_worker.tasks import outcome
from hivemind_worker.web.dashboard import app, page, views, words
from hivemind_worker.worker.machine import status

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
USAGE = accounts.Usage(AT, accounts.Reading(memory_bytes=64 << 20, processes_now=3), 150.4, 256 << 20)


def _report(**said: Any) -> dict[str, Any]:
    checks = {name: {"status": "healthy", "message": "fine"} for name in ("node_pool", "docker")}
    return {"status": "healthy", "checks": checks, "live": True, "ready": True, "not_ready_because": "", **said}


def _view(report: dict[str, Any] | None = None, language: str = words.ENGLISH, **changed: Any) -> dict[str, Any]:
    return views.view(dataclasses.replace(SNAPSHOT, **changed), report or _report(), NOW, language)


def _cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [row["cells"] for row in rows]


def test_the_state_says_the_worst_there_is() -> None:
    attempt = status.AttemptStatus("one", 1, "running", 1.0, "")
    assert _view()["state"] == {"tone": "good", "text": "All is well: it is ready for tasks"}
    assert _view(attempts=(attempt,))["state"]["text"] == "All is well. Tasks here: 1"
    waiting = _report(ready=False, not_ready_because="draining")
    assert _view(waiting)["state"] == {"tone": "held", "text": "It takes no tasks now: draining"}
    ill = _report(status="unhealthy", checks={"docker": {"status": "unhealthy", "message": "gone"}}, ready=False)
    assert _view(ill)["state"] == {"tone": "bad", "text": "Something is wrong: Isolation"}
    assert _view(ill)["checks"] == [{"tone": "bad", "cells": ["Isolation", "wrong", "gone"]}]
    assert _view(_report(live=False))["state"]["text"] == "Something is wrong: its loops stand still"


def test_attempts_are_told_with_what_they_use_as_far_as_it_is_known() -> None:
    running = (
        status.AttemptStatus("one", 2, "running", 3.25, "", USAGE),
        status.AttemptStatus("two", 1, "accepted", 4000.0, ""),
    )
    ended = (
        status.EndedStatus("three", 1, NOW - dt.timedelta(seconds=90), 1.04, outcome.Status.FAILED, "oom", "too much"),
        status.EndedStatus("four", 1, NOW - dt.timedelta(hours=3), 8000, outcome.Status.COMPLETED),
    )
    shown = _view(attempts=running, last_ended=ended, ended=2)
    assert _cells(shown["running"]) == [
        ["one", "2", "running", "3.2 s", "150 %", "64 MiB of 256 MiB", "3"],
        ["two", "1", "waiting", "67 min", "", "", ""],
    ]
    assert _cells(shown["ended"]) == [
        ["three", "1", "failed", "oom", "1.0 s", "90 s ago", "too much"],
        ["four", "1", "completed", "", "2.2 h", "3 h ago", ""],
    ]
    assert [row["tone"] for row in shown["ended"]] == ["bad", "good"]
    assert (shown["none_running"], shown["none_ended"]) == (False, False)
    assert _view()["none_running"] is True


def test_charts_end_now_and_keep_within_their_frame() -> None:
    cpu, memory, disk = _view()["charts"]
    assert cpu["line"] == "0.0,0.0 150.0,30.0 300.0,60.0"
    assert cpu["area"] == "0.0,60 0.0,0.0 150.0,30.0 300.0,60.0 300.0,60"
    assert (cpu["now"], cpu["of"], cpu["range"]) == ("0 %", "of 8 cores", "0\u2013100 % in 10 min")
    assert (memory["now"], memory["of"]) == ("50 %", "of 16.0 GiB")
    assert (disk["now"], disk["of"]) == ("25 %", "of 512.0 GiB")
    assert views.points([(AT - 10_000, 140.0), (AT + 10, -3.0)], AT) == ["0.0,0.0", "300.0,60.0"]
    assert {chart["now"] for chart in _view(recent=(), machine={})["charts"]} == {"not measured"}


def test_what_fences_tasks_is_told_with_what_to_do() -> None:
    defences = (
        executor.Defence("system call filter", in_force=True),
        executor.Defence("memory limit", in_force=False, why="no control groups", fix="delegate one"),
    )
    shown = _view(defences=defences, isolation="docker")
    assert shown["fence"] == "Containers of a Docker engine"
    assert shown["defences"] == [
        {"tone": "good", "cells": ["system call filter", "in force", ""]},
        {"tone": "held", "cells": ["memory limit", "not in force", "no control groups; delegate one"]},
    ]


def test_the_worker_itself_is_told() -> None:
    assert _cells(_view(ended=7)["about"]) == [
        ["Pool", "pool.example:50051"],
        ["Tasks at once", "2"],
        ["Given to tasks", "CPU 1.5 of 8 · Memory 1.0 GiB of 16.0 GiB · Disk 0 B of 100.0 GiB"],
        ["Ended so far", "7"],
    ]
    lost = _view(connected=False, trouble="Connection refused", max_concurrent_tasks=0)["about"]
    assert _cells(lost)[:2] == [
        ["Pool", "pool.example:50051 (not connected: Connection refused)"],
        ["Tasks at once", "as many as fit"],
    ]
    troubles = (status.Trouble(NOW - dt.timedelta(seconds=5), "one", "report rejected"),)
    assert _cells(_view(last_errors=troubles)["troubles"]) == [["5 s ago", "one", "report rejected"]]


@pytest.mark.parametrize("language", words.TEXTS)
def test_nothing_of_a_stranger_becomes_markup(language: str) -> None:
    ended = status.EndedStatus(HOSTILE, 1, NOW, 1.0, outcome.Status.FAILED, HOSTILE, HOSTILE)
    shown = _view(
        _report(ready=False, not_ready_because=HOSTILE, checks={HOSTILE: {"status": "healthy", "message": HOSTILE}}),
        language,
        node_id=HOSTILE,
        pool=HOSTILE,
        isolation=HOSTILE,
        attempts=(status.AttemptStatus(HOSTILE, 1, HOSTILE, 1.0, HOSTILE),),
        last_ended=(ended,),
        last_errors=(status.Trouble(NOW, HOSTILE, HOSTILE),),
        defences=(executor.Defence(HOSTILE, in_force=False, why=HOSTILE),),
    )
    html = page.Page().html(shown, language, "1.0")
    assert html.count("<script") == 1  # the page's own
    assert html.count("<img") == 1
    assert html.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&#34;&gt;&lt;img") >= 12
    assert f'<html lang="{language}">' in html
    assert "style=" not in html


def test_both_languages_say_everything_with_the_same_gaps() -> None:
    english, chinese = words.TEXTS[words.ENGLISH], words.TEXTS[words.CHINESE]

    def gaps(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    assert {key: gaps(text) for key, text in english.items()} == {key: gaps(text) for key, text in chinese.items()}
    assert all(english.values())
    assert all(chinese.values())
    told = json.dumps(_view(language=words.CHINESE), ensure_ascii=False)
    assert "一切正常" in told
    assert "All is well" not in told


@pytest.mark.parametrize(
    ("asked", "accepted", "spoken"),
    [
        ("", "", "en"),
        ("", "zh-TW,zh;q=0.9,en-US;q=0.8,en;q=0.7", "zh-Hant"),
        ("", "de-DE,de;q=0.9,en;q=0.5,zh;q=0.7", "zh-Hant"),
        ("", "fr, en;q=0.1, zh;q=0", "en"),
        ("", "*", "en"),
        ("zh-Hant", "en", "zh-Hant"),
        ("en", "zh-TW", "en"),
        ("tlh", "zh-TW", "zh-Hant"),
        ("", "zh;q=<script>, ,;;,en;q=0.1", "en"),
        ("", "x" * 100_000, "en"),
    ],
)
def test_the_language_is_the_one_asked_for_or_liked_best(asked: str, accepted: str, spoken: str) -> None:
    assert words.language(asked, accepted) == spoken


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.7", False),
        ("::ffff:10.0.0.7", False),
        ("0.0.0.0", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_who_is_this_machine(host: str, here: bool) -> None:
    assert app.local(host) is here


def test_amounts_are_for_people() -> None:
    told = [views.amount(count) for count in (0, 1023, 1024, 5 << 20, 1536 << 20, 3 << 40)]
    assert told == ["0 B", "1023 B", "1 KiB", "5 MiB", "1.5 GiB", "3.0 TiB"]
