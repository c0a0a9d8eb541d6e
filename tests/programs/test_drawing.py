"""Plots of reports: what a reader must find in each, in elements that a page can hold many of."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import pytest

import drawing
import given

SVG = "{http://www.w3.org/2000/svg}"
NASTY = '<b>$x^2$ & "quotes" 北京'


@pytest.fixture(scope="module", autouse=True)
def _fonts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """matplotlib's cache, and the fonts that it keeps open, before a test looks for files that were left open."""
    with pytest.MonkeyPatch.context() as patched:
        private = tmp_path_factory.mktemp("private")
        patched.setattr(given, "PRIVATE", private)
        patched.setenv("MPLCONFIGDIR", str(private))
        drawing.bars(["a"], [1.0], "fonts")
        yield


def read(plot: str) -> ET.Element:
    """A plot as XML. In a page its namespaces are known."""
    known = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return ET.fromstring(plot.replace("<svg", known, 1))


def texts(plot: str) -> list[str]:
    return [(element.text or "").strip() for element in read(plot).iter(f"{SVG}text")]


def tips(plot: str) -> list[str]:
    return [element.text or "" for element in read(plot).iter(f"{SVG}title")]


def heights(plot: str) -> list[float]:
    """Of the bars, in pixels."""
    paths = [path.get("d", "") for path in read(plot).iter(f"{SVG}path") if "--bar" in path.get("style", "")]
    rows = [[float(number) for number in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)] for path in paths]
    return [max(row) - min(row) for row in rows]


def test_a_histogram_tells_each_bar_and_labels_both_axes() -> None:
    plot = drawing.histogram([0.0, 10.0, 20.0, 30.0], [5, 0, 1_200], "How x is spread")
    assert tips(plot) == ["0 to 10: 5", "20 to 30: 1,200"]
    assert {"0", "10", "20", "30"} <= set(texts(plot))
    assert read(plot).get("aria-label") == "How x is spread"


def test_a_single_value_among_millions_is_seen() -> None:
    plot = drawing.histogram([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [5_000_000, 4_000_000, 4_500_000, 1, 0], "x")
    assert "log scale" not in texts(plot)
    assert len(heights(plot)) == 4
    assert 0.9 <= min(heights(plot)) <= 1.5, "a line of a pixel"


def test_counts_of_many_sizes_are_on_a_log_scale_and_that_is_said() -> None:
    counts = [1_000_000, 900, 30, 1]
    plot = drawing.histogram([0.0, 1.0, 2.0, 3.0, 4.0], counts, "x")
    assert "log scale" in texts(plot)
    assert "1 M" in texts(plot)
    powers = [height / heights(plot)[-1] for height in heights(plot)]
    expected = [math.log10(count / 0.5) / math.log10(2) for count in counts]
    assert powers == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("step", "labels"),
    [(dt.timedelta(days=400), {"2004", "2008"}), (dt.timedelta(hours=6), {"02", "03", "2020-Jan"})],
)
def test_dates_are_labelled_as_dates(step: dt.timedelta, labels: set[str]) -> None:
    start = dt.datetime(2020 if step < dt.timedelta(days=1) else 2000, 1, 1)  # noqa: DTZ001  (as tables have them)
    edges = [(start + number * step).isoformat(" ") for number in range(18)]
    assert labels <= set(texts(drawing.histogram(edges, [3] * 17, "when")))


def test_whole_numbers_have_whole_labels() -> None:
    labels = texts(drawing.histogram([2019.0, 2020.0, 2021.0], [3, 4], "year", whole=True))
    assert {"2019", "2020", "2021"} <= set(labels)
    assert not any(re.fullmatch(r"\d+\.\d+", label) for label in labels)


@pytest.mark.parametrize(
    "edges",
    [["0000-01-01", "0001-01-01", "0002-01-01"], ["44-03-15 (BC)", "1", "2"], ["9999-12-31", "99999-01-01", "x"]],
)
def test_dates_that_no_calendar_has_are_drawn_in_order(edges: list[str]) -> None:
    plot = drawing.histogram(edges, [1, 2], "when")
    assert edges[0][:10] in texts(plot)
    assert len(tips(plot)) == 2


@pytest.mark.parametrize("edges", [[1.0, 1.0 + 2**-52], [-1e300, 1e300], [0.0, 5e-324], [1e15, 1e15 + 1]])
def test_any_numbers_can_be_drawn(edges: list[float]) -> None:
    assert len(tips(drawing.histogram(edges, [3], "x"))) == 1


def test_names_are_text_and_whole_when_pointed_at() -> None:
    plot = drawing.bars([NASTY, "n" * 60], [3.0, 0.0], NASTY)
    assert NASTY in texts(plot)
    assert f"{'n' * 25}…" in texts(plot)
    assert tips(plot) == [f"{NASTY}: 3", f"{'n' * 60}: 0"]
    assert "3" in texts(plot)
    assert read(plot).get("aria-label") == NASTY


def test_a_heat_map_tells_every_cell() -> None:
    plot = drawing.heat_map(["a", NASTY], [[1.0, None], [-0.25, 1.0]], "pairs")
    assert tips(plot) == [
        "a and a: 1.0000",
        f"a and {NASTY}: no value",
        f"{NASTY} and a: -0.2500",
        f"{NASTY} and {NASTY}: 1.0000",
    ]
    assert {"1.00", "–", "-.25"} <= set(texts(plot))


def test_plots_take_the_colours_and_fonts_of_their_page_and_share_no_ids() -> None:
    plots = [
        drawing.histogram([0.0, 1.0, 2.0], [5_000_000, 1], "x"),
        drawing.bars(["a"], [1.0], "y"),
        drawing.heat_map(["a", "b"], [[1.0, 0.5], [0.5, 1.0]], "z"),
    ]
    for plot in plots:
        assert "var(--" in plot
        assert "font-family" not in plot
        assert not re.search(r"#0101\d\d|fill: #|stroke: #(?!000000)", plot)
        names = re.findall(r' id="([^"]+)"', plot)
        assert len(names) == len(set(names))
        assert not any(name.startswith(("tip", "patch", "text", "figure")) for name in names)
