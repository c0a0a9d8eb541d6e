"""The texts that charset-normalizer is tested with: encoding, language and characters are what its test expects."""

from __future__ import annotations

from pathlib import Path

import pytest
import source_packages

import text_input
import text_languages

EXPECTED = {
    "arabic-1": ("cp1256", "ar"),
    "arabic": ("utf-8", "ar"),
    "bulgarian": ("utf-8", "bg"),
    "chinese": ("big5", "zh"),
    "english.bom": ("utf-8-sig", "en"),
    "french-1": ("cp1252", "fr"),
    "french": ("utf-8", "fr"),
    "greek-2": ("cp1253", "el"),
    "greek": ("cp1253", "el"),
    "hebrew-2": ("cp1255", "he"),
    "hebrew-3": ("cp1255", "he"),
    "korean": ("cp949", "ko"),
    "polish": ("utf-8", "pl"),
    "russian-2": ("utf-8", "ru"),
    "russian-3": ("utf-8", "ru"),
    "russian": ("mac_cyrillic", "ru"),
    "spanish": ("utf-8", "es"),
    "turkish": ("cp1254", "tr"),
}
"""What the package's own test expects of ``data/sample-*.txt``: 18 files, of which 18 are right here."""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_encoding_and_language_of_each_fixture(tmp_path: Path) -> None:
    folder = source_packages.unpack("charset-normalizer==3.5.2", tmp_path) / "data"
    assert {path.stem.removeprefix("sample-") for path in folder.glob("sample-*.txt")} == set(EXPECTED)
    different = {}
    for name, (encoding, language) in EXPECTED.items():
        path = folder / f"sample-{name}.txt"
        source = text_input.source(str(path))
        text = "".join(source.pieces())
        found = source.encoding.replace("_", "-"), text_languages.language(iter([text]))[0]
        if found != (encoding.replace("_", "-"), language) or text != path.read_bytes().decode(encoding):
            different[name] = found
    assert not different
