"""Plots for reports, drawn by matplotlib as SVG inside the page: histograms, bars, a heat map, in the page's colours.

matplotlib writes each colour as a number, but the page has two palettes, for light and for dark. So plots are drawn in
marker colours, and the SVG gets the page's variables in their place. What a reader sees on pointing at a bar or a cell
is a ``<title>``, which matplotlib does not write: such shapes are one collection, whose paths get theirs in order.
"""

from __future__ import annotations

import datetime as dt
import html
import io
import itertools
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import plotting

_INK, _SOFT, _AXIS, _BAR, _WARM, _COOL, _CARD = (f"#0101{number:02x}" for number in range(1, 8))
_PALETTE = {
    _INK: "var(--ink)",
    _SOFT: "var(--soft)",
    _AXIS: "var(--line)",
    _BAR: "var(--bar)",
    _WARM: "var(--warm)",
    _COOL: "var(--cool)",
    _CARD: "var(--card)",
}
_PIXELS_PER_INCH = 72
"""matplotlib's SVG has 72 units to the inch; the page shows a unit as a pixel."""

_HISTOGRAM = (360, 170)
"""Width and height in pixels; so below."""

_FLAT = 120
"""A bar of less than 1/120 of the highest is less than a pixel high: the plot has 127."""

_LOG_BOTTOM = 0.5
"""Where a log scale of counts begins, so that a single one is a bar."""

_STEPS = (1, 2, 2.5, 5, 10)
"""Between labels of an axis, times a power of ten: what people count in."""

_SHAPES = "shapes"

_NAME_CHARACTERS = 26
"""Most characters of a name beside a bar or a cell: what fits there."""


def histogram(edges: Sequence[float] | Sequence[str], counts: Sequence[int], title: str, *, whole: bool = False) -> str:
    """Bars between edges, which are numbers or ISO dates. Counts are on a log scale where most bars would be flat.

    ``whole``: the values are whole numbers, and so are the labels of their axis.
    """
    figure, axes = _axes(*_HISTOGRAM, left=44, right=12, top=8, bottom=32)
    positions, dates = _positions(edges)
    highest = max([*counts, 1])
    filled = [count for count in counts if count]
    is_log = sum(count * _FLAT < highest for count in filled) * 2 > len(filled)
    # On a linear scale a single value among millions is still a line of a pixel.
    least = 0.0 if is_log else highest / _FLAT
    bottom = _LOG_BOTTOM if is_log else 0.0
    shapes = [
        _Shape(start, bottom, 0.96 * (end - start), max(count, least) - bottom, f"{span}: {count:,}")
        for start, end, count, span in zip(positions, positions[1:], counts, _spans(edges), strict=False)
        if count
    ]
    axes.set_xlim(positions[0], positions[-1])
    _scale(axes, highest, is_log=is_log)
    if dates:
        from matplotlib import dates as by_date  # noqa: PLC0415  (loaded by `_axes`)

        # matplotlib.dates has no types.
        locator = by_date.AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(by_date.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axes.xaxis.offsetText.set(fontsize=9, color=_SOFT)
    elif isinstance(edges[0], str):
        middle = len(counts) // 2
        marks = sorted({0, middle, len(counts)})
        axes.set_xticks(marks, [str(edges[mark])[:10] for mark in marks])
    else:
        from matplotlib import ticker  # noqa: PLC0415  (loaded by `_axes`)

        axes.xaxis.set_major_locator(ticker.MaxNLocator(5, steps=_STEPS, integer=whole))
    return _svg(figure, title, axes, shapes)


def bars(names: Sequence[str], values: Sequence[float], title: str, *, width: int = 360, full: float = 0.0) -> str:
    """One bar beneath the other, its name to the left and its value to the right; ``full`` fills the width."""
    left, right, height = 156, 70, 20
    figure, axes = _axes(width, len(names) * height + 8, left=left, right=right, top=4, bottom=4)
    longest = full or max([*(abs(value) for value in values), 1e-300])
    rows = range(len(names))
    shapes = []
    for row, name, value in zip(rows, names, values, strict=True):
        length = abs(value) / longest
        shapes.append(_Shape(0.0, row - 0.35, max(length, 0.004), 0.7, f"{name}: {number(value)}"))
        axes.annotate(
            number(value), (length, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=11,
            color=_SOFT, annotation_clip=False, parse_math=False,
        )  # fmt: skip
    axes.set_yticks(rows, [clipped(name) for name in names], fontsize=11, parse_math=False)
    axes.set_xticks([])
    axes.set_xlim(0, 1)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines["bottom"].set_visible(False)
    return _svg(figure, title, axes, shapes)


def heat_map(names: Sequence[str], matrix: Sequence[Sequence[float | None]], title: str) -> str:
    """A square of cells, from -1 (warm) over 0 (none) to 1 (cool); what has no value is grey."""
    cell = 34 if len(names) <= 14 else 18
    side = len(names) * cell
    figure, axes = _axes(side + 260, side + 154, left=170, right=90, top=150, bottom=4)
    axes.set_xlim(0, len(names))
    axes.set_ylim(len(names), 0)
    shapes = []
    square = 1 - 1 / cell
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            colour = _AXIS if value is None else _COOL if value >= 0 else _WARM
            strength = 1.0 if value is None else min(1.0, abs(value))
            coefficient = "no value" if value is None else f"{value:.4f}"
            text = f"{names[row]} and {names[column]}: {coefficient}"
            shapes.append(_Shape(column, row, square, square, text, colour, strength))
            if cell > 20:
                written = "–" if value is None else f"{round(value, 2) + 0.0:.2f}".replace("0.", ".", 1)
                ink = _CARD if value is not None and strength > 0.55 else _INK
                axes.text(column + 0.49, row + 0.49, written, ha="center", va="center", fontsize=10, color=ink)
    middles = [at + 0.5 for at in range(len(names))]
    labels = [clipped(name) for name in names]
    axes.set_yticks(middles, labels, fontsize=11, parse_math=False)
    axes.xaxis.tick_top()
    axes.set_xticks(middles, labels, fontsize=11, rotation=50, ha="left", rotation_mode="anchor", parse_math=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return _svg(figure, title, axes, shapes)


def number(value: object) -> str:
    """A number for people: at most five telling digits, thousands parted, powers of ten only where need be."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return "–"
    if abs(value) < 1e15 and value == int(value):
        return f"{int(value):,}"
    if 1e-3 <= abs(value) < 1e12:
        decimals = max(0, 4 - math.floor(math.log10(abs(value))))
        written = f"{value:,.{decimals}f}"
        return written.rstrip("0").rstrip(".") if "." in written else written
    return f"{value:.4g}"


def clipped(name: str) -> str:
    """A name that fits beside a bar: one line of so many characters."""
    name = " ".join(name.split())
    return name if len(name) <= _NAME_CHARACTERS else name[: _NAME_CHARACTERS - 1] + "…"


class _Shape(NamedTuple):
    """A rectangle in the data's units, and what a reader sees on pointing at it."""

    left: float
    bottom: float
    width: float
    height: float
    text: str
    colour: str = _BAR
    opacity: float = 1.0


def _axes(width: int, height: int, *, left: int, right: int, top: int, bottom: int) -> tuple[Any, Any]:
    """A figure of so many pixels, and its axes with these margins: fixed ones, for to measure them takes longest."""
    mpl = plotting.load()
    # Text stays text: the reader's browser has more letters than any font of ours, and can search them.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "report", "axes.unicode_minus": False})
    from matplotlib import figure  # noqa: PLC0415  (loaded above)

    canvas = figure.Figure(figsize=(width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH))
    axes = canvas.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    )
    axes.tick_params(which="both", labelsize=10, length=0, colors=_SOFT)
    axes.tick_params(axis="x", pad=7)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_AXIS)
    return canvas, axes


def _scale(axes: Any, highest: int, *, is_log: bool) -> None:
    """The axis of counts: a few lines across the plot, whole numbers."""
    from matplotlib import ticker  # noqa: PLC0415  (loaded by `_axes`)

    if is_log:
        axes.set_yscale("log")
        axes.set_ylim(_LOG_BOTTOM, highest * 1.5)
        axes.yaxis.set_major_locator(ticker.LogLocator(10, numticks=5))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
        axes.set_ylabel("log scale", fontsize=9, color=_SOFT, labelpad=1)
    else:
        axes.set_ylim(0, highest * 1.05)
        axes.yaxis.set_major_locator(ticker.MaxNLocator(3, steps=_STEPS, integer=True))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _short(value)))
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=_AXIS, linewidth=1)


def _short(value: float) -> str:
    """A count in at most five characters."""
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= power:
            scaled = value / (1e3 if letter == "k" else power)
            return f"{scaled:.3g} {letter}"
    return number(value)


def _positions(edges: Sequence[float] | Sequence[str]) -> tuple[list[float], bool]:
    """Where the edges are on the axis, and whether as dates: years that a calendar does not have are only in order."""
    if not isinstance(edges[0], str):
        return [float(edge) for edge in edges], False
    from matplotlib import dates  # noqa: PLC0415  (loaded by `_axes`)

    try:
        parsed = [dt.datetime.fromisoformat(str(edge)) for edge in edges]
        numbers = [float(number) for number in dates.date2num(parsed)]  # type: ignore[no-untyped-call]
    except (ValueError, OverflowError):
        return [float(at) for at in range(len(edges))], False
    if any(later <= earlier for earlier, later in itertools.pairwise(numbers)):
        return [float(at) for at in range(len(edges))], False
    return numbers, True


def _spans(edges: Sequence[float] | Sequence[str]) -> list[str]:
    words = [edge[:19] if isinstance(edge, str) else number(edge) for edge in edges]
    return [f"{start} to {end}" for start, end in itertools.pairwise(words)]


def _draw(axes: Any, shapes: Sequence[_Shape]) -> None:
    """All rectangles as one collection: twenty bars by themselves take as long as the rest of a plot."""
    from matplotlib import collections, colors  # noqa: PLC0415  (loaded by `_axes`)

    corners = [((x, y), (x + width, y), (x + width, y + height), (x, y + height)) for x, y, width, height, *_ in shapes]
    fills = [colors.to_rgba(shape.colour, shape.opacity) for shape in shapes]
    drawn = collections.PolyCollection(corners, facecolors=fills, edgecolors="none", linewidths=0)
    drawn.set_gid(_SHAPES)
    axes.add_collection(drawn, autolim=False)


def _svg(figure: Any, title: str, axes: Any, shapes: Sequence[_Shape]) -> str:
    """The figure as an element of the page: nothing in it names this file's ids, fonts or colours."""
    _draw(axes, shapes)
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that matplotlib's font lacks: the browser's has them
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(rf'<g id="{_SHAPES}">.*?</g>', lambda group: _titled(group[0], shapes), text, flags=re.DOTALL)
    used = set(re.findall(r"(?:#|url\(#)([\w.-]+)", text))
    text = re.sub(r' id="([\w.-]+)"', lambda named: named[0] if named[1] in used else "", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    for colour, variable in _PALETTE.items():
        text = text.replace(colour, variable)
    width, height = (round(side * _PIXELS_PER_INCH) for side in figure.get_size_inches())
    head = (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{html.escape(title, quote=True)}">'
    )
    return head + re.sub(r"\s*\n\s*", " ", text[text.index(">") + 1 :])


def _titled(group: str, shapes: Sequence[_Shape]) -> str:
    """The collection's paths, which come in the order of its shapes, each with its text."""
    texts = iter([html.escape(shape.text) for shape in shapes])
    return re.sub(r"<path [^>]*/>", lambda path: f"<g><title>{next(texts)}</title>{path[0]}</g>", group)
