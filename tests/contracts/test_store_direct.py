"""What the loop commits by itself, beside a disk that fails slowly, a long log, defects and callers that are gone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import store_parts

from hivemind_worker import errors
from hivemind_worker.pool.store import database, direct, records, sqlite, writing

QUIET = 10 * direct.QUIET_SECONDS
SLOW_SECONDS = 20 * direct.MAX_COMMIT_SECONDS


class SlowDisk(sqlite3.Connection):
    """Notes which thread begins each transaction; statements that begin with ``word`` take a while, and may fail."""

    word = ""
    fails = False
    threads: list[str] = []  # noqa: RUF012  (of the one connection that writes)

    def execute(self, *args: Any) -> sqlite3.Cursor:
        if args[0].startswith("BEGIN"):
            SlowDisk.threads.append(threading.current_thread().name)
        if SlowDisk.word and args[0].startswith(SlowDisk.word):
            time.sleep(SLOW_SECONDS)
            if SlowDisk.fails:
                raise sqlite3.OperationalError("disk I/O error")
        return super().execute(*args)


@pytest_asyncio.fixture
async def opened_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[sqlite.SqliteStore]:
    connect = sqlite3.connect

    def noting(*args: Any, **named: Any) -> Any:
        if not named.get("uri"):
            named["factory"] = SlowDisk
        return connect(*args, **named)

    opened = sqlite.SqliteStore(tmp_path / "pool.sqlite")
    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", noting)
        await opened.open()
    monkeypatch.setattr(SlowDisk, "word", "")
    monkeypatch.setattr(SlowDisk, "fails", False)
    monkeypatch.setattr(SlowDisk, "threads", [])
    yield opened
    SlowDisk.word = ""
    await opened.close()


def connection(opened_store: sqlite.SqliteStore) -> sqlite3.Connection:
    assert opened_store._write._connection is not None
    return opened_store._write._connection


async def allow_loop(opened_store: sqlite.SqliteStore) -> None:
    """This machine's disk may be slow."""
    opened_store._write._direct._slowest = 0.0
    await asyncio.sleep(QUIET)
    assert opened_store._write._direct.is_allowed()


async def submit_four(opened_store: sqlite.SqliteStore) -> list[str]:
    """Submit one task after the other, each after a pause; return which thread did each."""
    await allow_loop(opened_store)
    SlowDisk.threads.clear()
    for number in range(4):
        await asyncio.sleep(QUIET)
        with contextlib.suppress(errors.Unavailable):
            await opened_store.submit([store_parts.task(f"t{number}")])
    return SlowDisk.threads


LOOP_ONCE = [threading.main_thread().name, "pool-store", "pool-store", "pool-store"]


async def test_a_store_that_another_program_locks_holds_up_one_call_of_the_loop(
    opened_store: sqlite.SqliteStore, tmp_path: Path
) -> None:
    """SQLite waits 10 s for a lock."""
    connection(opened_store).execute("PRAGMA busy_timeout = 50").fetchall()
    with contextlib.closing(sqlite3.connect(tmp_path / "pool.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        threads = await submit_four(opened_store)
        other.execute("ROLLBACK")
    assert threads == LOOP_ONCE


@pytest.mark.parametrize(("word", "fails"), [("COMMIT", False), ("COMMIT", True), ("SELECT", False), ("BEGIN", True)])
async def test_a_slow_disk_holds_up_one_call_of_the_loop(
    opened_store: sqlite.SqliteStore, word: str, *, fails: bool
) -> None:
    await allow_loop(opened_store)
    SlowDisk.word, SlowDisk.fails = word, fails
    assert (await submit_four(opened_store))[:4] == LOOP_ONCE


async def test_a_listeners_defect_is_not_the_error_of_whoever_changed_something(
    opened_store: sqlite.SqliteStore,
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def heard(changes: object) -> None:
        raise LookupError("a defect of a listener")

    opened_store.listen(heard)
    opened_store._write._direct.committed(1.0)
    assert await opened_store.submit([store_parts.task("thread")]) == ("thread",)
    assert len(complaints) == 1
    await allow_loop(opened_store)
    assert await opened_store.submit([store_parts.task("loop")]) == ("loop",)
    assert len(complaints) == 2


async def test_a_cancelled_caller_leaves_no_error_that_nobody_hears(opened_store: sqlite.SqliteStore) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def refuse(on: writing.Transaction) -> None:
        raise errors.UserError("no")

    await allow_loop(opened_store)
    SlowDisk.threads.clear()
    asking = asyncio.create_task(opened_store._write.do(refuse, brief=True))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled()
    del asking
    gc.collect()
    await asyncio.sleep(0.01)
    assert SlowDisk.threads[0] == threading.current_thread().name
    assert complaints == []


def state_of(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


async def test_the_loop_never_brings_the_log_into_the_file(opened_store: sqlite.SqliteStore, tmp_path: Path) -> None:
    """Also where the thread has filled the log to just below the bound at which SQLite does it within a commit."""
    path = tmp_path / "pool.sqlite"
    log = path.with_name("pool.sqlite-wal")
    database.checkpoint(connection(opened_store))
    number = 0

    def large(size: int) -> records.NewTask:
        nonlocal number
        number += 1
        return records.NewTask(f"t{number}", b"x" * size, f"d{number}", store_parts.SMALL)

    while log.stat().st_size / 4120 < database.LOG_PAGES - 46:
        await opened_store.submit([large(direct.MAX_BRIEF_BYTES + 1)])
    before = state_of(path)
    SlowDisk.threads.clear()
    for _ in range(10):
        await allow_loop(opened_store)
        await opened_store.submit([large(direct.MAX_BRIEF_BYTES - 1_000)])
    assert log.stat().st_size / 4120 > database.LOG_PAGES
    assert set(SlowDisk.threads) == {threading.current_thread().name}
    assert state_of(path) == before


async def test_after_a_long_reader_the_thread_brings_the_log_into_the_file(
    opened_store: sqlite.SqliteStore, tmp_path: Path
) -> None:
    """A backup reads for a minute, while the pool is busy; the first lonely request after it must not pay for that."""
    path = tmp_path / "pool.sqlite"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM tasks").fetchone()
        for number in range(8):
            await opened_store.submit(
                [records.NewTask(f"t{number}", b"x" * 3_000_000, f"d{number}", store_parts.SMALL)]
            )
        reader.execute("COMMIT")
    before = state_of(path)
    await allow_loop(opened_store)
    await opened_store.submit([store_parts.task("lonely")])
    assert state_of(path) == before
    opened_store._write._direct.committed(1.0)
    await opened_store.submit([store_parts.task("by the thread")])
    assert path.stat().st_size > before[0] + 8 * 3_000_000 - 1_000_000


class Defect(BaseException):
    """What no ``except Exception`` catches."""


async def test_a_close_that_is_cancelled_amid_a_defect_cancels_no_caller(opened_store: sqlite.SqliteStore) -> None:
    def die(on: writing.Transaction) -> None:
        raise Defect

    await allow_loop(opened_store)
    dying = asyncio.create_task(opened_store._write.do(die, brief=True))
    await asyncio.sleep(0)
    closing = asyncio.create_task(opened_store._write.close())
    await asyncio.sleep(0)
    closing.cancel()
    caller, _ = await asyncio.gather(dying, closing, return_exceptions=True)
    assert isinstance(caller, errors.Unavailable)
