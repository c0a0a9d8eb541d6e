"""Plots as SVG, for reports that need nothing but themselves: histograms, bars, a heat map. Colours are the page's."""

from __future__ import annotations

import html
import math

WIDTH = 360
HEIGHT = 150
_LEFT, _BOTTOM, _TOP, _RIGHT = 8, 22, 8, 8
_NAME = 26
"""Most characters of a name beside a bar or a cell: what fits there."""


def histogram(edges: list[float] | list[str], counts: list[int], title: str) -> str:
    """Bars side by side, with the first, the middle and the last edge beneath. Edges may be words: dates are."""
    most = max([*counts, 1])
    inner = WIDTH - _LEFT - _RIGHT
    width = inner / max(1, len(counts))
    bars = []
    for at, count in enumerate(counts):
        height = (HEIGHT - _TOP - _BOTTOM) * count / most
        if count:
            height = max(1.0, height)  # a single value among millions is still seen
        said = f"{_edge(edges[at])} to {_edge(edges[at + 1])}: {count:,}"
        bars.append(
            f'<rect class="bar" x="{_LEFT + at * width:.2f}" y="{HEIGHT - _BOTTOM - height:.2f}" '
            f'width="{max(0.5, width - 1):.2f}" height="{height:.2f}"><title>{html.escape(said)}</title></rect>'
        )
    base = HEIGHT - _BOTTOM
    axis = f'<line class="axis" x1="{_LEFT}" y1="{base}" x2="{WIDTH - _RIGHT}" y2="{base}"/>'
    middle = len(counts) // 2
    marks = [(0, "start"), (middle, "middle"), (len(counts), "end")] if len(counts) > 1 else [(0, "start")]
    labels = "".join(
        f'<text x="{_LEFT + at * width:.2f}" y="{HEIGHT - 6}" text-anchor="{anchor}">'
        f"{html.escape(_edge(edges[at], short=True))}</text>"
        for at, anchor in marks
    )
    return _svg(WIDTH, HEIGHT, title, "".join(bars) + axis + labels)


def bars(names: list[str], values: list[float], title: str, *, width: int = WIDTH, most: float = 0.0) -> str:
    """One bar beneath the other, its name to the left and its value to the right; ``most`` fills the width."""
    row, beside, after = 20, 150, 70
    most = most or max([*(abs(value) for value in values), 1e-300])
    room = width - beside - after
    drawn = []
    for at, (name, value) in enumerate(zip(names, values, strict=True)):
        y = at * row + 4
        long = room * abs(value) / most
        drawn.append(
            f'<text x="{beside - 6}" y="{y + 11}" text-anchor="end">{html.escape(clipped(name))}'
            f"<title>{html.escape(name)}</title></text>"
            f'<rect class="bar" x="{beside}" y="{y}" width="{max(1.0, long):.2f}" height="{row - 6}"/>'
            f'<text x="{beside + long + 5:.2f}" y="{y + 11}">{number(value)}</text>'
        )
    return _svg(width, len(names) * row + 8, title, "".join(drawn))


def heat_map(names: list[str], matrix: list[list[float | None]], title: str) -> str:
    """A square of cells, from -1 (warm) over 0 (none) to 1 (cool); what has no value is hatched by a dash."""
    cell = 34 if len(names) <= 14 else 18
    beside = 170
    above = 120
    drawn = []
    for at, name in enumerate(names):
        middle = at * cell + cell / 2
        shown = html.escape(clipped(name))
        drawn.append(
            f'<text x="{beside - 6}" y="{above + middle + 4:.1f}" text-anchor="end">{shown}</text>'
            f'<text transform="translate({beside + middle + 4:.1f},{above - 6}) rotate(-55)">{shown}</text>'
        )
        for other, value in enumerate(matrix[at]):
            x, y = beside + other * cell, above + at * cell
            said = f"{name} and {names[other]}: {'no value' if value is None else f'{value:.4f}'}"
            kind = "none" if value is None else "cool" if value >= 0 else "warm"
            strength = 0.0 if value is None else min(1.0, abs(value))
            drawn.append(
                f'<rect class="{kind}" x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" '
                f'fill-opacity="{strength:.3f}"><title>{html.escape(said)}</title></rect>'
            )
            if cell > 20:
                written = "–" if value is None else f"{round(value, 2) + 0.0:.2f}".replace("0.", ".", 1)
                ink = "on" if strength > 0.55 else "off"
                drawn.append(
                    f'<text class="cell {ink}" x="{x + cell / 2 - 0.5:.1f}" y="{y + cell / 2 + 3.5:.1f}" '
                    f'text-anchor="middle">{written}</text>'
                )
    side = len(names) * cell
    return _svg(beside + side + 90, above + side + 4, title, "".join(drawn))


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
    """A name that fits beside a bar."""
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _edge(edge: float | str, *, short: bool = False) -> str:
    if isinstance(edge, str):
        return edge[:10] if short else edge[:19]
    return number(edge)


def _svg(width: float, height: float, title: str, inside: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" '
        f'aria-label="{html.escape(title, quote=True)}">{inside}</svg>'
    )
