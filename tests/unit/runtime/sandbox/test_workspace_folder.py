"""Where workspaces on a disk lie: a folder that is made when it is missing, and that every user can enter."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from hivemind_worker import errors
from hivemind_worker.runtime.sandbox import workspaces


async def test_the_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    scratch = tmp_path / "a" / "temp"
    await workspaces.sweep(scratch, None)
    assert scratch.stat().st_mode & 0o777 == 0o711
    workspace = workspaces.Workspace.made(scratch, None)
    await workspaces.sweep(scratch, None)
    assert workspace.folder.is_dir(), "it is in use"
    await workspace.remove()
    assert not list(scratch.iterdir())


async def test_a_folder_that_cannot_be_made_is_the_owners_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.BadSettings, match="temp_dir"):
        await workspaces.sweep(tmp_path / "file" / "temp", None)


async def test_a_folder_that_the_sandboxes_user_cannot_enter_is_refused_and_named(tmp_path: Path) -> None:
    # Every task that wanted a workspace on disk failed with nothing but "No such process".
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(errors.BadSettings, match=r"uid 65534: `chmod o\+x ") as caught:
        await workspaces.sweep(closed / "temp", 65534)
    assert "temp_dir" in str(caught.value)
    await workspaces.sweep(closed / "temp", None)


async def test_a_workspace_that_is_being_made_is_not_swept_from_under_its_task(tmp_path: Path) -> None:
    # Another worker, or a single command, begins in the same temp_dir and removes what nobody has locked.
    def make() -> None:
        for _ in range(600):
            workspace = workspaces.Workspace.made(tmp_path, None)
            made.append(workspace)
            (workspace.folder / "file").write_text("x")

    made: list[workspaces.Workspace] = []
    making = asyncio.create_task(asyncio.to_thread(make))
    while not making.done():
        await workspaces.sweep(tmp_path, None)
    await making
    assert [workspace.folder for workspace in made if not (workspace.folder / "file").exists()] == []
    for workspace in made:
        os.close(workspace.lock)
