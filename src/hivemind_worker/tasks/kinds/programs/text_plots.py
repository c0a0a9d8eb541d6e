"""One picture of a text: its commonest words, its keywords, how long its sentences and words are."""

from __future__ import annotations

import importlib.util
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import given
import plotting

_FONT = ("cvttf_NotoSansCJK_Regular", "NotoSansCJKtc-Regular.otf")
_SHOWN = 20
_BAR, _SOFT = "#2f6fb3", "#5d6878"


def draw(
    title: str,
    words: list[tuple[str, int]],
    keywords: list[tuple[str, float]],
    sentence_lengths: Counter[int],
    word_lengths: Counter[int],
) -> None:
    """Write ``plots.png``."""
    mpl = plotting.load()
    from matplotlib import figure, font_manager, layout_engine, ticker  # noqa: PLC0415  (loaded above)

    package, file = _FONT
    found = importlib.util.find_spec(package)
    families = ["DejaVu Sans"]
    if found is not None and found.submodule_search_locations:
        place = str(Path(found.submodule_search_locations[0], file))
        font_manager.fontManager.addfont(place)
        families.append(font_manager.FontProperties(fname=place).get_name())
    mpl.rcParams["font.family"] = families
    mpl.rcParams["axes.unicode_minus"] = False
    canvas = figure.Figure(
        figsize=(11, 8.5), dpi=110, layout=layout_engine.ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.1)
    )
    canvas.suptitle(_plain(title[:80]), fontsize=15)
    upper, lower = canvas.subplots(2, 2, gridspec_kw={"height_ratios": [2, 1]})
    _bars(upper[0], "Commonest words", [(word, float(count)) for word, count in words[:_SHOWN]])
    _bars(upper[1], "Keywords (TF-IDF)", keywords[:_SHOWN])
    _lengths(lower[0], "Words in a sentence", sentence_lengths)
    _lengths(lower[1], "Characters in a word", word_lengths)
    # What is counted comes in whole numbers, and so do the lengths that it is counted by.
    for axis in (upper[0].xaxis, *(axis for axes in lower for axis in (axes.xaxis, axes.yaxis))):
        axis.set_major_locator(ticker.MaxNLocator(integer=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scripts that neither font has: they are drawn as boxes
        canvas.savefig(given.RESULTS / "plots.png")


def _bars(axes: Any, title: str, rows: list[tuple[str, float]]) -> None:
    _frame(axes, title)
    names = [_plain(word if len(word) <= 24 else f"{word[:23]}…") for word, _ in rows]
    axes.barh(range(len(rows)), [value for _, value in rows], color=_BAR)
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.invert_yaxis()
    if not rows:
        axes.text(0.5, 0.5, "none", ha="center", color=_SOFT, transform=axes.transAxes)


def _lengths(axes: Any, title: str, lengths: Counter[int]) -> None:
    """Bars up to where 99 of 100 lie; what is longer is one bar at the end."""
    _frame(axes, title)
    count = sum(lengths.values())
    if not count:
        return
    seen, most = 0, 1
    for length in sorted(lengths):
        seen, most = seen + lengths[length], max(1, length)
        if seen >= 0.99 * count:
            break
    width = max(1, -(-most // 40))
    bins: Counter[int] = Counter()
    for length, times in lengths.items():
        bins[min(length, most) // width] += times
    axes.bar([at * width + (width - 1) / 2 for at in bins], list(bins.values()), width=0.85 * width, color=_BAR)
    if max(lengths) > most:
        axes.set_xlabel(f"the last bar: {most} and more, up to {max(lengths)}", fontsize=8, color=_SOFT)


def _frame(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.tick_params(labelsize=9, length=0, colors=_SOFT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c8ced6")


def _plain(text: str) -> str:
    """A dollar sign is no formula."""
    return text.replace("$", r"\$")
