"""The trained pipeline as ONNX, kept only where a second runtime computes the same from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import polars as pl
import skl2onnx
from skl2onnx.common import _container, data_types
from sklearn.base import is_classifier
from sklearn.svm import LinearSVC

import given
import learning_columns

Array = npt.NDArray[Any]

OPSET = 18
_AGREE = 0.97
"""Single precision may put a row on the other side of a border; more than this share of the rows it must not."""

_ROWS = 2_000
_MOST_BYTES = 1024 * 1024 * 1024


def export(
    pipeline: Any, inputs: pl.DataFrame | Array, columns: learning_columns.Columns | None, *, classes: bool
) -> dict[str, Any]:
    """Write model.onnx and tell its inputs and how far it agrees; or tell why there is none, under ``why_not``.

    ``inputs`` are rows to compare on, as the pipeline takes them.
    """
    inputs = inputs[:_ROWS]
    try:
        content = _convert(pipeline, inputs, columns)
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        said, *_ = session.run(None, _fed(session, inputs))
    except Exception as error:  # noqa: BLE001 - the converter knows no error of its own; the model itself is there
        return {"why_not": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"}
    expected = np.asarray(pipeline.predict(inputs))
    said = np.asarray(said).reshape(expected.shape)
    if classes:
        agreeing = float(np.mean(said.astype(str) == expected.astype(str)))
    else:
        spread = float(np.std(expected)) or 1.0
        agreeing = float(np.mean(np.abs(said - expected) <= 1e-3 * spread))
    if agreeing < _AGREE:
        return {"why_not": f"a second runtime computes something else from it for {1 - agreeing:.1%} of the rows"}
    (given.RESULTS / "model.onnx").write_bytes(content)
    names = inputs.columns if isinstance(inputs, pl.DataFrame) else ["features"]
    return {
        "file": "model.onnx",
        "opset": OPSET,
        "inputs": [  # in the order of the columns, under names that ONNX allows
            {"name": each.name, "column": name, "type": each.type, "shape": each.shape}
            for name, each in zip(names, session.get_inputs(), strict=True)
        ],
        "outputs": [each.name for each in session.get_outputs()],
        "rows_compared": len(expected),
        "rows_agreeing": agreeing,
    }


def _convert(pipeline: Any, inputs: pl.DataFrame | Array, columns: learning_columns.Columns | None) -> bytes:
    if isinstance(inputs, pl.DataFrame):
        assert columns is not None
        types = [
            (name, (data_types.FloatTensorType if name in columns.numeric else data_types.StringTensorType)([None, 1]))
            for name in inputs.columns
        ]
    else:
        types = [("features", data_types.FloatTensorType([None, inputs.shape[1]]))]
    make_node = _container.make_node
    _container.make_node = _with_whole_numbers(make_node)
    try:
        converted = skl2onnx.to_onnx(pipeline, initial_types=types, options=_options(pipeline), target_opset=OPSET)
    finally:
        _container.make_node = make_node
    content: bytes = converted.SerializeToString()
    if len(content) > _MOST_BYTES:
        raise ValueError("it would be larger than 1 GiB")
    return content


def _options(pipeline: Any) -> dict[int, dict[str, bool]] | None:
    """Probabilities as one array rather than as a list of dictionaries, where a model has any."""
    if isinstance(pipeline[-1], LinearSVC):
        return {id(pipeline[-1]): {"nocl": False}}  # without a word for it the converter stumbles over its own default
    return {id(pipeline): {"zipmap": False}} if is_classifier(pipeline[-1]) else None


def _with_whole_numbers(make_node: Any) -> Any:
    """skl2onnx 1.20 hands booleans where protobuf takes whole numbers, for trees on histograms."""

    def made(*names: Any, **attributes: Any) -> Any:
        for name, value in attributes.items():
            if isinstance(value, list) and any(isinstance(each, bool | np.bool_) for each in value):
                attributes[name] = [int(each) for each in value]
        return make_node(*names, **attributes)

    return made


def _fed(session: onnxruntime.InferenceSession, inputs: pl.DataFrame | Array) -> dict[str, Array]:
    if not isinstance(inputs, pl.DataFrame):
        return {"features": inputs.astype(np.float32)}
    return {
        each.name: (
            np.array(column.to_list(), dtype=object) if column.dtype == pl.String else column.to_numpy().astype("f4")
        ).reshape(-1, 1)
        for each, column in zip(session.get_inputs(), inputs.iter_columns(), strict=True)
    }
