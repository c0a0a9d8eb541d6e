"""Cross-validated search over a grid of parameters: every candidate fitted on the same folds, the best one chosen."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import ParameterGrid, ParameterSampler

import given
import learning_problem
import learning_results

Array = npt.NDArray[Any]
Evaluate = Callable[[dict[str, Any], Array, Array], dict[str, Any]]
"""Takes a candidate's parameters, the rows to learn from and those to test on, and returns the scores."""

_LOSSES = frozenset({"log_loss", "mean_absolute_error", "root_mean_squared_error"})
"""Scores of which the lower is the better."""


def search(training: learning_results.Told, rows: Array, target: Array, evaluate: Evaluate) -> dict[str, Any]:
    """Return the best candidate's parameters, and write all of them to search.csv, the best first.

    Only ``rows`` are used, those to learn from: the rows to be tested on have no say.
    Raises Refusal where no candidate has the score.
    """
    search_options = training.settings["search"]
    score = search_options["score"] or ("accuracy" if training.problem == "classification" else "r2")
    grid = ParameterGrid({name: list(values) for name, values in search_options["parameters"].items()})
    if search_options["candidates"] and search_options["candidates"] < len(grid):
        candidates = list(
            ParameterSampler(grid.param_grid[0], search_options["candidates"], random_state=training.seed)
        )
    else:
        candidates = list(grid)
    folds = learning_problem.folds(
        {"cross_validation": search_options["folds"]}, target[rows], training.problem, training.seed
    )
    results: list[tuple[float, float, dict[str, Any]]] = []
    for number, candidate in enumerate(candidates, start=1):
        scores = [evaluate(candidate, rows[train], rows[test]).get(score) for train, test in folds]
        values = [value for value in scores if value is not None]
        if len(values) < len(scores):
            raise given.Refusal(f"search.score: {score} is not defined in some folds, such as those that lack a class")
        results.append((float(np.mean(values)), float(np.std(values)), candidate))
        print(f"candidate {number} of {len(candidates)}: {score} {results[-1][0]:.4f} of {json.dumps(candidate)}")
    sign = 1 if score in _LOSSES else -1
    results.sort(key=lambda result: sign * result[0])  # of equal ones the first in the grid
    _write(results, score)
    mean, deviation, best = results[0]
    training.content["search"] = {
        "score": score,
        "folds": search_options["folds"],
        "candidates": len(candidates),
        "best": {"parameters": best, "mean": mean, "deviation": deviation},
    }
    training.note(
        "the search chose by the score that it reports, which is a little too good; the test scores are of rows that "
        "it has not seen"
    )
    return best


def _write(results: list[tuple[float, float, dict[str, Any]]], score: str) -> None:
    names = list(results[0][2])
    with (given.RESULTS / "search.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["rank", f"mean {score}", f"deviation of {score}", *names])
        for rank, (mean, deviation, candidate) in enumerate(results, start=1):
            values = [
                candidate[name] if isinstance(candidate[name], str) else json.dumps(candidate[name]) for name in names
            ]
            writer.writerow([rank, repr(mean), repr(deviation), *values])
