"""Trains an estimator or predicts with a kept one: threads and folders set first, then its program."""

from __future__ import annotations

import importlib
import os
import tempfile
from pathlib import Path

import given

_PROGRAMS = {"scikit-learn": "learn_scikit_learn", "pytorch": "learn_pytorch", "tensorflow": "learn_tensorflow"}


def work() -> int:
    """Train or predict; 0 when the results are written."""
    settings = given.settings()
    _surroundings(given.threads())
    name = "predict_scikit_learn" if settings["model"] else _PROGRAMS[settings["model_type"]]
    program = importlib.import_module(name)
    code: int = program.learn(settings)
    return code


def _surroundings(threads: int) -> None:
    """Libraries read these as they are imported. More threads than cores of the quota only wait for each other."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = str(threads)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # the order of its sums differs from machine to machine
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what makes sums on a GPU repeatable
    caches = str(Path(tempfile.gettempdir(), "caches"))  # a capsule has no home to write to
    for name in ("MPLCONFIGDIR", "KERAS_HOME", "XDG_CACHE_HOME", "TORCH_HOME"):
        os.environ.setdefault(name, caches)


if __name__ == "__main__":
    given.run(work)
