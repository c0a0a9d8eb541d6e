"""Texts from files of every format that is read, the cases that were miscounted, and texts that are there twice."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docx
import program_runs
import pytest
from docx.oxml import parse_xml

import given
import text_duplicates
import text_input

LIBRARIES = ("charset_normalizer", "matplotlib.pyplot", "py3langid", "stopwordsiso", "icu4py", "pypdf", "docx")

CASES = Path(__file__).with_name("cases") / "text"
BEES = ["The bees of a hive divide their work.", "No bee gives orders.", "All of them follow simple rules, every day."]
PAGE = """<!DOCTYPE html><html><head><title>no text</title><style>p {color: red}</style></head>
<body><script>var no = "text";</script><h1>The bees of a hive
divide their <b>wo</b>rk.</h1><p>No bee gives&nbsp;orders.</p><!-- no text --><ul><li>All of them follow simple
rules,<br>every day.</ul></body></html>"""


def pdf(*pages: list[str]) -> bytes:
    """A PDF of lines of ASCII, as its specification has them."""
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"", font]
    kids = []
    for lines in pages:
        drawn = b"BT /F1 12 Tf 72 720 Td 14 TL " + b" ".join(b"(%s) Tj T*" % line.encode() for line in lines) + b" ET"
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(drawn), drawn))
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>/Contents %d 0 R>>"
            % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<</Type/Pages/Kids[%s]/Count %d>>" % (b" ".join(kids), len(kids))
    file, places = io.BytesIO(), []
    file.write(b"%PDF-1.4\n")
    for number, content in enumerate(objects, 1):
        places.append(file.tell())
        file.write(b"%d 0 obj%s endobj\n" % (number, content))
    table = file.tell()
    entries = b"".join(b"%010d 00000 n \n" % place for place in places)
    file.write(b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(places) + 1, entries))
    file.write(b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(places) + 1, table))
    return file.getvalue()


def word_document() -> bytes:
    document, file = docx.Document(), io.BytesIO()
    document.add_paragraph(BEES[0])
    table = document.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = BEES[1:]
    document.save(file)
    return file.getvalue()


FILES: Mapping[str, bytes] = {
    "bees.txt": "\n\n".join(BEES).encode(),
    "bees.html": PAGE.encode(),
    "latin.htm": b'<html><meta charset="iso-8859-1"><p>Das sch\xf6ne \x84Haus\x93 der B\xe4ren.</html>',
    "bees.docx": word_document(),
    "bees.pdf": pdf(
        ["The bees of a hive di-", "vide their work. No bee"],
        ["gives orders. All of them follow", "simple rules, every day."],
    ),
    **{path.name: path.read_bytes() for path in sorted(CASES.iterdir())},
}


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("texts") / "workspace"
    ran = program_runs.run(folder, FILES, processing_type="text_analysis", input_data=list(FILES), options={"top": 500})
    assert ran.code == 0, ran.err
    found: dict[str, Any] = ran.json()
    found["by_file"] = {document["file"]: document for document in found["documents"]}
    return found


def test_cases_that_were_miscounted(summary: dict[str, Any]) -> None:
    counts = {name[:3]: (found["words"], found["sentences"]) for name, found in summary["by_file"].items()}
    right = {"t01": (10, 2), "t04": (6, 2), "t06": (7, 2), "t07": (11, 3), "t08": (11, 3)}
    assert {name: counts[name] for name in right} == right
    assert {"word": "istanbul", "count": 2} in summary["top_words"]
    assert summary["by_file"]["t04_arabic_marks.txt"]["words"] == 6


def test_every_format_says_the_same(summary: dict[str, Any]) -> None:
    for name in ("bees.txt", "bees.html", "bees.docx", "bees.pdf"):
        found = summary["by_file"][name]
        assert found["format"] == {"txt": "text"}.get(name[5:], name[5:])
        assert (found["words"], found["sentences"], found["language"]) == (20, 3, "en"), name
    assert summary["by_file"]["bees.docx"]["paragraphs"] == summary["by_file"]["bees.html"]["paragraphs"] == 3
    assert "1 words divided at a line's end were joined" in summary["by_file"]["bees.pdf"]["notes"]
    latin = summary["by_file"]["latin.htm"]
    assert (latin["encoding"], latin["words"]) == ("cp1252", 5)
    assert {"bees.html", "bees.docx", "bees.pdf"} == {
        pair["file"] for pair in summary["duplicates"] if pair["similarity"] == 1 and pair["of"] == "bees.txt"
    }


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.pdf", pdf([], []), "has no text on its 2 pages: they are pictures"),
        ("a.pdf", b"%PDF-1.4 and nothing", "is a broken PDF"),
        ("a.docx", b"PK\x03\x04 and nothing", "is a ZIP archive, and no Word document"),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old Word or Excel file"),
        ("a.rtf", b"{\\rtf1 x}", "is RTF"),
    ],
)
def test_what_is_no_text_is_refused_by_its_name(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(given.Refusal, match=reason):
        text_input.source(str(path))


def run_of(text: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        (f'<w:p>{run_of("a ")}<w:ins w:id="1" w:author="x">{run_of("new ")}</w:ins>{run_of("b")}</w:p>', "a new b"),
        ('<w:p><w:del w:id="1" w:author="x"><w:r><w:delText>a</w:delText></w:r></w:del></w:p>', ""),
        (
            (
                f'<w:p><w:moveFrom w:id="1" w:author="x">{run_of("old")}</w:moveFrom>'
                f'<w:moveTo w:id="2" w:author="x">{run_of("new")}</w:moveTo></w:p>'
            ),
            "new",
        ),
        (
            (
                '<w:p><w:pPr><w:rPr><w:del w:id="3" w:author="x"/></w:rPr></w:pPr>'
                f"{run_of('one ')}</w:p><w:p>{run_of('paragraph')}</w:p>"
            ),
            "one paragraph",
        ),
        (f"<w:sdt><w:sdtContent><w:p>{run_of('control')}</w:p></w:sdtContent></w:sdt>", "control"),
        (f"<w:p>{run_of('a ')}<w:sdt><w:sdtContent>{run_of('b')}</w:sdtContent></w:sdt></w:p>", "a b"),
        (f'<w:p><w:fldSimple w:instr="TITLE">{run_of("field")}</w:fldSimple></w:p>', "field"),
        (f'<w:p><w:smartTag w:element="x">{run_of("tag")}</w:smartTag></w:p>', "tag"),
        (f'<w:customXml w:element="x"><w:p>{run_of("custom")}</w:p></w:customXml>', "custom"),
        (
            (
                "<w:p><w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>"
                '<w:r><w:rPr><w:vanish w:val="0"/></w:rPr><w:t>shown</w:t></w:r></w:p>'
            ),
            "shown",
        ),
        (f"<w:p><w:hyperlink>{run_of('link')}</w:hyperlink></w:p>", "link"),
        (
            f"<w:p><w:r><w:ruby><w:rt>{run_of('かん')}</w:rt><w:rubyBase>{run_of('漢')}</w:rubyBase></w:ruby></w:r></w:p>",
            "漢",
        ),
        (
            '<w:p><w:pPr><w:tabs><w:tab w:pos="9"/></w:tabs></w:pPr><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t></w:r></w:p>',
            "a\tb",
        ),
        (
            (
                "<w:tbl><w:sdt><w:sdtContent><w:tr><w:tc><w:tcPr><w:vMerge w:val='restart'/></w:tcPr>"
                f"<w:p>{run_of('cell')}</w:p></w:tc></w:tr></w:sdtContent></w:sdt>"
                f"<w:tr><w:tc><w:tcPr><w:vMerge/></w:tcPr><w:p>{run_of('covered')}</w:p></w:tc></w:tr></w:tbl>"
            ),
            "cell",
        ),
    ],
)
def test_a_word_document_is_what_its_reader_sees(
    inner: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(given, "memory_for_data", lambda: 10**9)
    document = docx.Document()
    body = document.element.body
    names = "".join(f' xmlns:{prefix}="{name}"' for prefix, name in body.nsmap.items() if prefix)
    body[:0] = list(parse_xml(f"<w:body{names}>{inner}</w:body>"))
    path = tmp_path / "a.docx"
    document.save(str(path))
    source = text_input.source(str(path))
    assert source.content is not None
    assert source.content.strip() == text
    assert any("tracked changes" in note for note in source.notes) == ("w:author" in inner)


@pytest.mark.parametrize(
    ("declared", "encoding", "text"),
    [
        ("shift_jis", "cp932", "①東京～髙い"),
        ("euc-kr", "cp949", "똠방각하"),
        ("big5", "big5hkscs", "香港嘅人"),
        ("iso-8859-9", "cp1254", "“İstanbul”"),
        ("tis-620", "cp874", "“สวัสดี”"),
        ("latin1", "cp1252", "“œuvre” €"),
        ("iso-2022-jp", "iso-2022-jp", "日本語の文章"),
        ("x-gbk", "gbk", "中文龍"),
        ("x-mac-cyrillic", "mac_cyrillic", "Привет"),
        ("iso-8859-15", "iso-8859-15", "œuvre €"),
    ],
)
def test_a_page_is_read_in_what_browsers_take_its_declaration_for(
    declared: str, encoding: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(given, "memory_for_data", lambda: 10**9)
    path = tmp_path / "a.html"
    page = f'<html><head><meta charset="{declared}"></head><body><p>{text}</p></body></html>'
    path.write_bytes(page.encode(encoding))
    assert "".join(text_input.source(str(path)).pieces()).strip() == text


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        ("<fieldset><legend>Name</legend>Text</fieldset>", "Name Text"),
        ("<center>One</center>two<menu><li>x</menu>y", "One two x y"),
        ("<button>A</button><button>B</button>", "A B"),
        ("<p><ruby>漢字<rp>(</rp><rt>かんじ</rt><rp>)</rp></ruby>", "漢字"),
        (
            (
                '<p>a <b hidden>no<i style="display:none">no<i hidden>no</i></i></b>'
                '<i style="color:red; DISPLAY : none">no</i>b<u style="display:block">c</u>'
            ),
            "a bc",
        ),
        ("<p>a<audio>no</audio><video>no</video><canvas>no</canvas> b<i>c</i>d", "a bcd"),
    ],
)
def test_the_text_of_a_page_is_parted_as_it_looks(
    inner: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(given, "memory_for_data", lambda: 10**9)
    path = tmp_path / "a.html"
    path.write_text(f"<html><body>{inner}</body></html>", encoding="utf-8")
    assert "".join(text_input.source(str(path)).pieces()).split() == words.split()


def test_duplicates_are_pairs_of_alike_texts() -> None:
    drawn = random.Random(3)
    vocabulary = [f"w{at}" for at in range(500)]
    first = [drawn.choice(vocabulary) for _ in range(2_000)]
    near = [word if drawn.random() > 0.02 else "other" for word in first]
    other = [drawn.choice(vocabulary) for _ in range(2_000)]
    prints = []
    for words in (first, near, other, list(first), [], []):
        fingerprint = text_duplicates.Fingerprint()
        for at in range(0, len(words), 7):
            fingerprint.add(words[at : at + 7])
        prints.append((fingerprint.digest, fingerprint.hashes))
    pairs = text_duplicates.pairs(prints)
    assert [(pair.one, pair.other) for pair in pairs if pair.similarity == 1] == [(0, 3)]
    assert {(pair.one, pair.other) for pair in pairs if pair.similarity < 1} == {(0, 1), (1, 3)}
    runs = [set(zip(words, words[1:], words[2:], strict=False)) for words in (first, near)]
    exact = len(runs[0] & runs[1]) / len(runs[0] | runs[1])
    assert pairs[1].similarity == pytest.approx(exact, abs=0.08)
