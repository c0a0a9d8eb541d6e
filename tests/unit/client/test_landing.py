"""A result file arrives whole, checked, in its place and nowhere else."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hivemind_worker import errors
from hivemind_worker.client import landing
from hivemind_worker.tasks import outcome

CONTENT = b"some content" * 1000


def _file(name: str = "a/b.txt", content: bytes = CONTENT, mode: int = 0o644) -> outcome.ResultFile:
    return outcome.ResultFile(name, outcome.Artifact(hashlib.sha256(content).hexdigest(), len(content)), mode)


def _landing(folder: Path, file: outcome.ResultFile) -> landing.Landing:
    return landing.Landing(folder, landing.place(folder, file.name), file)


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/.", "a/", "x\0y", "..", "n" * 5000]
)
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(errors.Rejected, match="cannot be fetched"):
        landing.place(tmp_path, name)


@given(st.text(max_size=30))
def test_whatever_a_name_is_its_place_is_inside(name: str) -> None:
    folder = Path("/tmp/no-such-folder-of-ours")
    try:
        path = landing.place(folder, name)
    except (errors.Rejected, UnicodeEncodeError):
        return
    assert os.path.normpath(path) == str(path)
    assert path.is_relative_to(folder)
    assert path != folder


def test_a_link_in_the_folder_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "inside" / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(errors.Rejected, match="a link lies there"):
        landing.place(tmp_path / "inside", "a/b.txt")


async def test_a_link_in_the_file_s_own_place_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / "b.txt").symlink_to(tmp_path / "target")
    async with _landing(tmp_path, _file("b.txt")) as arriving:
        arriving.write(CONTENT)
        assert arriving.finish()
    assert (tmp_path / "target").read_text() == "mine"
    assert not (tmp_path / "b.txt").is_symlink()
    assert (tmp_path / "b.txt").read_bytes() == CONTENT


async def test_it_is_not_there_before_it_is_whole_and_goes_on_where_it_was(tmp_path: Path) -> None:
    file = _file(mode=0o755)
    async with _landing(tmp_path, file) as arriving:
        arriving.write(CONTENT[:5000])
    assert not (tmp_path / "a/b.txt").exists()
    async with _landing(tmp_path, file) as arriving:
        assert arriving.offset == 5000
        arriving.write(CONTENT[5000:])
        assert arriving.finish()
    assert (tmp_path / "a/b.txt").read_bytes() == CONTENT
    assert (tmp_path / "a/b.txt").stat().st_mode & 0o111
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


async def test_wrong_content_never_takes_its_place(tmp_path: Path) -> None:
    async with _landing(tmp_path, _file()) as arriving:
        arriving.write(b"x" * len(CONTENT))
        assert not arriving.finish()
        assert arriving.offset == 0
        arriving.write(CONTENT)
        assert arriving.finish()
    assert (tmp_path / "a/b.txt").read_bytes() == CONTENT


async def test_what_is_there_already_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(CONTENT)
    async with _landing(tmp_path, _file("b.txt")) as arriving:
        assert arriving.done
    (tmp_path / "b.txt").write_bytes(CONTENT[:-1] + b"?")
    async with _landing(tmp_path, _file("b.txt")) as arriving:
        assert not arriving.done


async def test_two_downloads_never_write_one_file(tmp_path: Path) -> None:
    async with _landing(tmp_path, _file()):
        with pytest.raises(errors.StateInUse):
            async with _landing(tmp_path, _file()):
                pass


async def test_a_part_longer_than_the_file_is_begun_again(tmp_path: Path) -> None:
    async with _landing(tmp_path, _file()) as arriving:
        arriving.write(CONTENT + b"more")
    async with _landing(tmp_path, _file()) as arriving:
        assert arriving.offset == 0


async def test_a_file_where_a_folder_is_needed_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(landing.NoPlace, match="cannot be written"):
        async with _landing(tmp_path, _file()):
            pass
    assert (tmp_path / "a").read_text() == "mine"


async def test_the_setuid_bit_does_not_travel(tmp_path: Path) -> None:
    async with _landing(tmp_path, _file("x", mode=0o7755)) as arriving:
        arriving.write(CONTENT)
        arriving.finish()
    assert (tmp_path / "x").stat().st_mode & 0o7000 == 0
