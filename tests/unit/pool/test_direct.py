"""When the loop commits by itself: where nothing waits, the disk is quick, and the log is short."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import store_parts

from hivemind_worker import errors
from hivemind_worker.pool.store import database, direct, sqlite, writing

QUIET, QUICK = direct.QUIET_SECONDS, direct.MAX_COMMIT_SECONDS


@pytest.mark.parametrize(
    ("outstanding", "idle", "slowest", "commits", "may"),
    [
        (0, QUIET, QUICK, 0, True),
        (0, 3600.0, 0.0, direct.MAX_COMMITS - 1, True),
        (1, QUIET, 0.0, 0, False),
        (0, QUIET / 2, 0.0, 0, False),
        (0, QUIET, QUICK * 1.01, 0, False),
        (0, QUIET, 0.0, direct.MAX_COMMITS, False),
    ],
)
def test_when_the_loop_may_commit(outstanding: int, idle: float, slowest: float, commits: int, *, may: bool) -> None:
    assert direct.may_commit(outstanding, idle, slowest, commits) is may


def test_a_slow_disk_is_forgotten_commit_by_commit() -> None:
    commits = direct.Direct()
    commits.committed(0.05)
    for _ in range(26):
        commits.committed(0.0)
        assert not commits.is_allowed()
    commits.committed(0.0)
    assert commits.is_allowed()


@pytest_asyncio.fixture
async def opened_store(tmp_path: Path) -> AsyncIterator[sqlite.SqliteStore]:
    opened = sqlite.SqliteStore(tmp_path / "pool.sqlite")
    await opened.open()
    yield opened
    await opened.close()


async def where(writer: writing.Writer, *, brief: bool = True) -> str:
    """Have the name of a thread written, and return it; after a pause in which nothing is committed."""
    await asyncio.sleep(10 * QUIET)
    return await writer.do(_name, brief=brief)


def _name(on: writing.Transaction) -> str:
    on.sql.execute("UPDATE lease_clock SET seconds = seconds + 1")
    return threading.current_thread().name


def forget_slow_commits(writer: writing.Writer) -> None:
    """This machine's disk may be slow."""
    writer._direct._slowest = 0.0


async def test_a_lonely_brief_request_is_done_by_the_loop(opened_store: sqlite.SqliteStore) -> None:
    here = threading.current_thread().name
    forget_slow_commits(opened_store._write)
    assert await where(opened_store._write) == here
    assert await where(opened_store._write, brief=False) == "pool-store"
    opened_store._write._direct.committed(1.0)
    assert await where(opened_store._write) == "pool-store"


async def test_what_comes_together_shares_a_commit_of_the_thread(opened_store: sqlite.SqliteStore) -> None:
    forget_slow_commits(opened_store._write)
    await asyncio.sleep(10 * QUIET)
    names = await asyncio.gather(*(opened_store._write.do(_name, brief=True) for _ in range(20)))
    assert names[1:] == ["pool-store"] * 19


async def test_the_thread_brings_the_log_into_the_file(
    opened_store: sqlite.SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[tuple[str, str]] = []

    def note(connection: database.Connection, mode: str = "TRUNCATE") -> None:
        modes.append((threading.current_thread().name, mode))
        checkpoint(connection, mode)  # type: ignore[arg-type]  # one of the two that it takes

    checkpoint = database.checkpoint
    monkeypatch.setattr(database, "checkpoint", note)
    writer, here = opened_store._write, threading.current_thread().name
    for _ in range(direct.MAX_COMMITS):
        forget_slow_commits(writer)
        assert await where(writer) == here
    forget_slow_commits(writer)
    assert await where(writer) == "pool-store"
    assert modes == [("pool-store", "PASSIVE")]
    forget_slow_commits(writer)
    assert await where(writer) == here


class Defect(BaseException):
    """What no ``except Exception`` catches."""


async def test_a_defect_on_the_loop_ends_the_store_as_one_on_the_thread(opened_store: sqlite.SqliteStore) -> None:
    def die(on: writing.Transaction) -> None:
        _name(on)
        raise Defect

    await opened_store.submit([store_parts.task("before")])
    forget_slow_commits(opened_store._write)
    await asyncio.sleep(10 * QUIET)
    dying = asyncio.create_task(opened_store._write.do(die, brief=True))
    await asyncio.sleep(0)
    others = await asyncio.gather(
        *(opened_store.submit([store_parts.task(f"t{number}")]) for number in range(3)), return_exceptions=True
    )
    with pytest.raises(errors.Unavailable, match="Defect"):
        await dying
    assert {type(error) for error in others} == {errors.Unavailable}
    with pytest.raises(errors.Unavailable, match="Defect"):
        await opened_store.submit([store_parts.task("later")])
    assert (await opened_store.counts())["queued"] == 1


async def test_what_a_request_of_the_loop_raises_is_its_own(opened_store: sqlite.SqliteStore) -> None:
    def refuse(on: writing.Transaction) -> None:
        _name(on)
        raise errors.UserError("no")

    before = await opened_store._write.do(lambda on: on.sql.execute("SELECT seconds FROM lease_clock").fetchone()[0])
    forget_slow_commits(opened_store._write)
    await asyncio.sleep(10 * QUIET)
    with pytest.raises(errors.UserError, match="no"):
        await opened_store._write.do(refuse, brief=True)
    after = await opened_store._write.do(lambda on: on.sql.execute("SELECT seconds FROM lease_clock").fetchone()[0])
    assert after == before
