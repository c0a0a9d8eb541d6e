"""The plots of a training: confusion of classes, residuals of numbers, clusters, and the loss as it fell."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

mpl.use("Agg")
# Missing letters, and that its cache takes a moment where a machine is slow: neither is the submitter's affair.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

from matplotlib import font_manager  # noqa: E402  (makes that cache)
from matplotlib import pyplot as plt  # noqa: E402  (imports it)

import given  # noqa: E402  (imports stay in order)

Array = npt.NDArray[Any]

_CJK = "NotoSansCJKtc-Regular.otf"
_BLUE, _ORANGE, _GREY = "#2364aa", "#e07a1f", "#8a8f98"
_MOST_CLASSES = 30
_MOST_POINTS = 5_000
_WRITTEN = 16


def _letters() -> list[str]:
    """Fonts in the order of trial: the second has the letters of East Asia, where its package is installed."""
    for folder in (Path(sys.prefix), *(Path(place) for place in sys.path if place), Path(__file__).parent):
        for place in (folder / _CJK, folder.parent / _CJK):
            if place.is_file():
                font_manager.fontManager.addfont(place)
                return ["DejaVu Sans", font_manager.FontProperties(fname=str(place)).get_name()]
    return ["DejaVu Sans"]


mpl.rcParams.update(
    {
        "font.family": _letters(),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "axes.grid": False,
        "figure.dpi": 100,
    }
)


def confusion(matrix: list[list[int]], names: list[str], title: str) -> None:
    """Write confusion.png: a square for each pair of actual and predicted class, dark where there are many."""
    counts = np.array(matrix)
    if len(names) > _MOST_CLASSES:
        most = np.sort(np.argsort(-counts.sum(axis=1), kind="stable")[:_MOST_CLASSES])
        title += f" ({_MOST_CLASSES} largest of {len(names)} classes)"
        counts, names = counts[np.ix_(most, most)], [names[at] for at in most]
    side = min(9.0, 3.4 + 0.42 * len(names))
    figure, axes = plt.subplots(figsize=(side + 0.6, side))
    totals = np.maximum(1, counts.sum(axis=1, keepdims=True))
    axes.imshow(counts / totals, cmap="Blues", vmin=0.0, vmax=1.0)
    if len(names) <= _WRITTEN:
        for row, column in np.ndindex(counts.shape):
            colour = "white" if counts[row, column] / totals[row, 0] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=9)
    short = [_short(name, 16) for name in names]
    turned = max(map(len, short)) > (8 if len(names) < 7 else 3)
    axes.set_xticks(range(len(names)), short, rotation=45 if turned else 0, ha="right" if turned else "center")
    axes.set_yticks(range(len(names)), short)
    axes.set(xlabel="predicted", ylabel="actual", title=_short(title, 60))
    for spine in axes.spines.values():
        spine.set_visible(False)
    _save(figure, "confusion.png")


def calibration(bins: list[dict[str, Any]], title: str) -> None:
    """Write calibration.png: how often the model is right against how certain it is, and how many rows that is of."""
    figure, (axes, below) = plt.subplots(
        2, 1, figsize=(5.2, 6.0), sharex=True, gridspec_kw={"height_ratios": [3, 1]}, layout="constrained"
    )
    certainty, right, rows = (np.array([step[name] for step in bins]) for name in ("certainty", "right", "rows"))
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--", label="exactly calibrated")
    axes.plot(certainty, right, color=_BLUE, marker="o", label="model")
    axes.set(ylabel="share that is right", title=_short(title, 50), ylim=(-0.02, 1.02))
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    below.bar(certainty, rows, width=0.06, color=_BLUE)
    below.set(xlabel="probability of the class it says", ylabel="rows", xlim=(0, 1.02))
    _save(figure, "calibration.png")


def residuals(actual: Array, predicted: Array, name: str, title: str) -> None:
    """Write residuals.png: predicted against actual, and how the errors are spread."""
    if len(actual) > _MOST_POINTS:
        chosen = np.linspace(0, len(actual) - 1, _MOST_POINTS).astype(int)
        actual, predicted = actual[chosen], predicted[chosen]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2))
    low, high = (float(edge(np.concatenate([actual, predicted]))) for edge in (np.min, np.max))
    left.plot([low, high], [low, high], color=_GREY, linewidth=1, linestyle="--", label="exactly right")
    left.scatter(actual, predicted, s=14, color=_BLUE, alpha=0.6, linewidths=0)
    left.set(xlabel=f"actual {_short(name, 30)}", ylabel="predicted", title=_short(title, 60))
    left.legend(frameon=False, fontsize=9)
    right.hist(predicted - actual, bins=max(6, min(40, round(2 * len(actual) ** 0.5))), color=_BLUE)
    right.axvline(0.0, color=_GREY, linewidth=1, linestyle="--")
    right.set(xlabel="predicted - actual", ylabel="rows", title="Errors")
    _save(figure, "residuals.png")


def clusters(points: Array, labels: Array, title: str) -> None:
    """Write clusters.png: the rows on the two axes along which they differ most, a colour for each cluster."""
    if len(points) > _MOST_POINTS:
        chosen = np.linspace(0, len(points) - 1, _MOST_POINTS).astype(int)
        points, labels = points[chosen], labels[chosen]
    centred = points - points.mean(axis=0)
    _, _, axes_found = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes_found[:2].T
    if flat.shape[1] < 2:
        flat = np.column_stack([flat[:, 0], np.zeros(len(flat))])
    figure, axes = plt.subplots(figsize=(6.4, 4.8))
    colours = plt.get_cmap("tab20" if len(np.unique(labels)) > 10 else "tab10")
    for at, label in enumerate(np.unique(labels)):
        here = labels == label
        axes.scatter(flat[here, 0], flat[here, 1], s=16, color=colours(at % colours.N), label=str(label), linewidths=0)
    axes.set(xlabel="first principal component", ylabel="second principal component", title=_short(title, 60))
    if len(np.unique(labels)) <= 20:
        axes.legend(title="cluster", frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, "clusters.png")


def learning_curve(curves: dict[str, list[float]], *, step: str, title: str, best: int | None = None) -> None:
    """Write learning_curve.png: the loss after each step, of the rows learned from and of those held back."""
    figure, axes = plt.subplots(figsize=(6.4, 4.0))
    for (name, values), colour in zip(curves.items(), (_BLUE, _ORANGE, _GREY), strict=False):
        shown = np.array(values, dtype=float)
        marker = "o" if len(shown) < 3 else None
        axes.plot(np.arange(1, len(shown) + 1), shown, color=colour, label=name, marker=marker)
    if best is not None:
        axes.axvline(best, color=_GREY, linewidth=1, linestyle="--", label=f"kept: {step} {best}")
    every = np.concatenate([np.array(values, dtype=float) for values in curves.values()])
    every = every[np.isfinite(every)]
    if len(every) and every.min() > 0 and every.max() > 50 * every.min():
        axes.set_yscale("log")
    axes.set(xlabel=step, ylabel="loss", title=_short(title, 60))
    axes.legend(frameon=False, fontsize=9)
    _save(figure, "learning_curve.png")


def _short(text: str, most: int) -> str:
    """Without signs that would be read as formulas."""
    text = " ".join(text.split()).replace("$", r"\$")
    return text if len(text) <= most else text[: most - 1] + "…"


def _save(figure: Any, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that no font here has become boxes; the numbers stand elsewhere
        figure.savefig(given.RESULTS / name, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
