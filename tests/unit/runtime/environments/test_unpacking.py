"""What a wheel may write into an environment: its own files, in its own places, and no more of them than allowed."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

import package_index
import pytest

import unpacking

ABOUT = "hm_probe-1.0.dist-info"
SITE = "lib/python3.11/site-packages"


def wheel(
    files: Mapping[str, bytes] | None = None, *, name: str = "hm-probe", version: str = "1.0", about: str = ABOUT
) -> dict[str, bytes]:
    """The files of a wheel, with what it says of itself."""
    return {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **(files or {}),
    }


def packed(files: Mapping[str, bytes], kind: int = stat.S_IFREG | 0o644) -> io.BytesIO:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path)
            entry.filename = path  # as it is, whatever the library would make of it
            entry.external_attr = kind << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return content


def tree(folder: Path, size: int = 10**6, files: int = 1000) -> unpacking.Tree:
    return unpacking.Tree(folder / "environment", "python3.11", unpacking.Budget(size, files))


def unpack(folder: Path, files: Mapping[str, bytes], kind: int = stat.S_IFREG | 0o644) -> unpacking.Tree:
    made = tree(folder)
    unpacking.unpack(packed(files, kind), "hm-probe", "1.0", made)
    return made


def test_a_wheel_is_unpacked_with_its_commands_data_and_a_record_of_what_it_really_wrote(tmp_path: Path) -> None:
    made = unpack(
        tmp_path,
        wheel({
            "hm_probe/__init__.py": b"VERSION = '1.0'\n",
            "hm_probe-1.0.data/scripts/hm-run": b"#!python -s\nprint(1)\n",
            "hm_probe-1.0.data/data/share/hm.txt": b"data",
            "hm_probe-1.0.data/headers/hm.h": b"header",
            f"{ABOUT}/entry_points.txt": b"[console_scripts]\nhm-call = hm_probe.main:app.run [x]\n",
            f"{ABOUT}/RECORD": b"six.py,sha256=AAAA,1\n../../../etc/passwd,,\n",
        }),
    )  # fmt: skip
    made.finish("/usr/bin/python3.11", "3.11.2", inherit=True)
    root = made.root
    assert (root / SITE / "hm_probe/__init__.py").read_bytes() == b"VERSION = '1.0'\n"
    assert (root / "bin/hm-run").read_bytes() == b"#!/opt/hivemind/environment/bin/python3 -s\nprint(1)\n"
    assert (root / "share/hm.txt").read_bytes() == b"data"
    assert (root / "include/site/python3.11/hm-probe/hm.h").read_bytes() == b"header"
    call = (root / "bin/hm-call").read_text()
    assert "from hm_probe.main import app\n" in call
    assert "sys.exit(app.run())" in call
    assert (root / "bin/hm-call").stat().st_mode & 0o777 == 0o755
    record = (root / SITE / ABOUT / "RECORD").read_text()
    assert "hm_probe/__init__.py,sha256=" in record
    assert "../../../bin/hm-call,sha256=" in record
    assert "six.py" not in record
    assert "passwd" not in record
    assert (root / "bin/python3").readlink() == Path("/usr/bin/python3.11")
    assert "include-system-site-packages = true" in (root / "pyvenv.cfg").read_text()


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py", "/etc/evil", "a/../../evil", "a//b", "./a", "a\\b", "C:/a", "a\nb", "x/" * 50 + "y", "y" * 300,
        "hm_probe-1.0.data/data/bin/python3", "hm_probe-1.0.data/scripts/python", "hm_probe-1.0.data/data/pyvenv.cfg",
        "hm_probe-1.0.data/data/bin/python3/evil", "hm_probe-1.0.data/data/lib64/evil",
        "hm_probe-1.0.data/data/../../x",
        "hm_probe-1.0.data/elsewhere/x", "hm_probe-1.0.data/data/lib",
    ],
)  # fmt: skip
def test_a_name_that_leaves_its_place_is_refused_and_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(unpacking.BadWheel):
        unpack(tmp_path, wheel({name: b"evil"}))
    assert {path.name for path in tmp_path.iterdir()} <= {"environment"}
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644, stat.S_IFCHR | 0o644])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    with pytest.raises(unpacking.BadWheel, match="no ordinary file"):
        unpack(tmp_path, wheel({"a": b"/etc/passwd"}), kind)


@pytest.mark.parametrize(
    "files",
    [
        wheel(name="six"),
        wheel(version="9"),
        wheel(about="six-1.0.dist-info"),
        {**wheel(), **wheel(about="six-1.0.dist-info", name="six")},
        {"a.py": b""},
        {path: content for path, content in wheel().items() if not path.endswith("WHEEL")},
        wheel({"a": b"", "a/b": b""}),
        wheel({f"{ABOUT}/entry_points.txt": b"[console_scripts]\n../../evil = a:b\n"}),
        wheel({f"{ABOUT}/entry_points.txt": b"[console_scripts]\npython3 = a:b\n"}),
        wheel({f"{ABOUT}/entry_points.txt": b"[console_scripts]\nx = os:system('id')\n"}),
        wheel({f"{ABOUT}/entry_points.txt": b"no section"}),
    ],
    ids=["name", "version", "folder", "two", "none", "no WHEEL", "file and folder", "path", "python", "code", "broken"],
)
def test_a_wheel_that_is_not_what_it_was_offered_as_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(unpacking.BadWheel):
        unpack(tmp_path, files)


def test_a_bomb_ends_at_the_limit_whatever_its_directory_says(tmp_path: Path) -> None:
    bomb = packed(wheel({"bomb": bytes(50_000_000)}))
    assert len(bomb.getvalue()) < 100_000
    made = tree(tmp_path, size=2_000_000)
    with pytest.raises(unpacking.TooLarge):
        unpacking.unpack(bomb, "hm-probe", "1.0", made)
    assert (made.root / SITE / "bomb").stat().st_size <= 2_000_000
    with pytest.raises(unpacking.BadWheel, match="too many files"):
        unpacking.unpack(
            packed(wheel({f"f{at}": b"" for at in range(60)})), "hm-probe", "1.0", tree(tmp_path / "b", 10**6, 50)
        )


def test_what_two_wheels_bring_is_of_the_first_and_said(tmp_path: Path) -> None:
    made = tree(tmp_path)
    unpacking.unpack(packed(wheel({"six.py": b"right"})), "hm-probe", "1.0", made)
    second = wheel({"six.py": b"forged"}, name="hm-evil", about="hm_evil-1.0.dist-info")
    unpacking.unpack(packed(second), "hm-evil", "1.0", made)
    assert (made.root / SITE / "six.py").read_bytes() == b"right"
    assert "six.py of hm-evil==1.0 is left out" in made.clashes[0]


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all" * 10, b"PK\5\6" + b"\xff" * 18])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(unpacking.BadWheel):
        unpacking.unpack(io.BytesIO(content), "hm-probe", "1.0", tree(tmp_path))


def test_the_wheels_of_the_tests_own_index_are_taken(tmp_path: Path) -> None:
    index = package_index.Index()
    index.offer("hm-probe", "1.0", pth="import os\n")
    made = tree(tmp_path)
    unpacking.unpack(io.BytesIO(index.files["hm_probe-1.0-py3-none-any.whl"]), "hm-probe", "1.0", made)
    assert (made.root / SITE / "hm_probe.pth").exists()
