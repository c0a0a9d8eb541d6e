"""Predicts with a model.joblib that an earlier task kept: the same columns, read the same way, and its answers."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import polars as pl

import given
import learning_columns
import learning_data
import learning_problem
import learning_results
import learning_tables
import model_record

Array = npt.NDArray[Any]
_EXAMPLES = 5


def learn(settings: dict[str, Any]) -> int:
    """Load, read, predict, write. 0 when the results are there."""
    pipeline, record = _load(settings["model"])
    data = _read(settings, record)
    results = learning_results.begin(settings, data, "")
    results.problem = record.problem
    if record.problem == "classification":
        results.labels = np.asarray(pipeline.classes_)
        results.names = [record.class_names.get(label, str(label)) for label in results.labels.tolist()]
    inputs = data.features
    print(f"read {len(data.rows):,} rows")
    with results.step("predict"):
        predicted = model_record.predict(pipeline, inputs, results)
    split = learning_problem.Split(np.arange(0), np.arange(len(data.rows)))
    results.content |= {"class": record.estimator_class, "inputs": record.inputs, "trained_with": record.versions}
    _score(results, record, predicted)
    learning_results.write_predictions(results, split.test, predicted)
    learning_results.write_metrics(results, split)
    return 0


def _load(path: str) -> tuple[Any, model_record.Record]:
    try:
        pipeline = joblib.load(path)
    except Exception as error:  # noqa: BLE001 - a pickle that is none, or of other libraries, fails in any way
        reason = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        raise given.Refusal(
            f"model: {path} cannot be loaded ({reason}); it must be the model.joblib of an ml task"
        ) from None
    record = model_record.of(pipeline)
    if record is None:
        raise given.Refusal(
            f"model: {path} does not say what it learned from; it must be the model.joblib of an ml task"
        )
    installed = importlib.metadata.version("scikit-learn")
    if record.versions.get("scikit-learn") != installed:
        raise given.Refusal(
            f"model: was trained with scikit-learn {record.versions.get('scikit-learn')}, which may compute otherwise "
            f"than {installed}, which is here: train it again, or use its model.onnx"
        )
    return pipeline, record


def _read(settings: dict[str, Any], record: model_record.Record) -> learning_data.Data:
    source = settings["predict_data"]
    if isinstance(source, str) and source.lower().endswith(".npz"):
        return _array(source, record)
    if record.inputs[0]["kind"] == "array":
        raise given.Refusal("predict_data: the model learned from an array: send an npz file")
    table = _table(source, settings["options"], record)
    for column in record.inputs:
        if column["name"] not in table.frame.columns:
            raise given.Refusal(
                f"predict_data: there is no column {column['name']!r}, from which the model learned; "
                f"there are {learning_tables.listed(table.frame.columns)}"
            )
    notes = list(table.notes)
    features = pl.DataFrame([_conform(table.frame[column["name"]], column, notes) for column in record.inputs])
    if not features.height:
        raise given.Refusal("predict_data: holds no rows")
    used = {column["name"] for column in record.inputs} | {record.target}
    left_out = dict.fromkeys(
        (name for name in table.frame.columns if name not in used), "the model has not learned from it"
    )
    return learning_data.Data(
        features,
        None,
        record.target,
        np.arange(features.height),
        class_names=record.class_names,
        notes=notes,
        source=table,
        left_out=left_out,
    )


def _table(source: Any, options: dict[str, Any], record: model_record.Record) -> learning_tables.LearningTable:
    """The table, read again with the types that the model knows where the file alone suggests others."""
    if not isinstance(source, str):
        return learning_tables.read_inline(source)
    names = [column["name"] for column in record.inputs]
    table = learning_tables.read_file(source, options, names)
    if not table.files:
        return table
    types: dict[str, str] = {}
    for column in [*record.inputs, *([{"name": record.target, "read_as": "category"}] if record.text_classes else [])]:
        if column["name"] not in table.frame.columns or column["name"] in options.get("types", {}):
            continue
        is_text = learning_columns.is_text(table.frame[column["name"]])
        if column["read_as"] == "category" and not is_text:
            types[column["name"]] = "text"
        elif column["read_as"] == "number" and is_text:
            types[column["name"]] = "number"
    if not types:
        return table
    return learning_tables.read_file(source, {**options, "types": {**options.get("types", {}), **types}}, names)


def _conform(column: pl.Series, known: dict[str, Any], notes: list[str]) -> pl.Series:
    """A column as the model takes it, with notes on what it has not seen. Raises Refusal where it is something else."""
    if known["kind"] == "category":
        texts = column if learning_columns.is_text(column) else column.cast(pl.String)
        texts = texts.cast(pl.String).fill_null("").rename(column.name)
        strange = texts.filter(~texts.is_in(known["categories"]))
        if known["categories"] and strange.len():
            examples = learning_tables.listed(strange.unique(maintain_order=True).to_list()[:_EXAMPLES])
            notes.append(
                f"column {column.name!r}: {strange.len()} values are categories that the model has not seen: {examples}"
            )
        return texts
    if column.null_count() == column.len():
        values = pl.Series(column.name, [float("nan")] * column.len(), dtype=pl.Float64)
    else:
        origin = learning_columns.origin(column)
        alike = {origin, known["read_as"]} <= {"number", "truth value"}
        found, reason = learning_columns.as_number(column) if origin == known["read_as"] or alike else (None, "")
        if found is None:
            raise given.Refusal(
                f"predict_data: column {column.name!r} is {reason or origin}, and the model learned "
                f"from {known['read_as']} there"
            )
        values = found.fill_null(float("nan"))
    missing = int(values.is_nan().sum())
    if missing:
        notes.append(f"column {column.name!r}: {missing} missing values are filled as the model learned to")
    if known["range"]:
        low, high = known["range"]
        beyond = int(((values.fill_nan(None) < low) | (values.fill_nan(None) > high)).sum())
        if beyond:
            notes.append(
                f"column {column.name!r}: {beyond} values lie outside of what the model has seen, {low:g} to {high:g}"
            )
    return values


def _array(path: str, record: model_record.Record) -> learning_data.Data:
    if record.inputs[0]["kind"] != "array":
        raise given.Refusal("predict_data: the model learned from a table with names, and an npz file has none")
    settings = {"features": [], "target": "", "problem": "clustering", "model_type": "scikit-learn"}
    data = learning_data.read({**settings, "training_data": path, "estimator": ""})
    assert not isinstance(data.features, pl.DataFrame)
    flat = data.features.reshape(len(data.features), -1)
    if flat.shape[1] != record.inputs[0]["width"]:
        raise given.Refusal(
            f"predict_data: rows of {flat.shape[1]} numbers, and the model learned from {record.inputs[0]['width']}"
        )
    return learning_data.Data(flat, None, record.target, data.rows, class_names=record.class_names, notes=data.notes)


def _score(results: learning_results.Told, record: model_record.Record, predicted: learning_results.Predicted) -> None:
    """Scores, where the table has the target too, for the rows that have one."""
    source = results.data.source
    if source is None or record.target not in source.frame.columns or record.problem == "clustering":
        return
    actual = source.frame[record.target]
    if record.problem == "regression":
        numbers, _ = learning_columns.as_number(actual) if not learning_columns.is_text(actual) else (None, "")
        if numbers is None:
            results.note(f"the target {record.target!r} holds no numbers here, so there are no scores")
            return
        values = numbers.to_numpy()
        usable = np.flatnonzero(np.isfinite(values))
    else:
        assert results.labels is not None
        by_name = {str(label): at for at, label in enumerate(results.labels.tolist())}
        words = actual.cast(pl.String)
        if by_name.keys() <= {"true", "false"}:  # the classes of True and FALSE, too
            words = words.str.to_lowercase()
        places = np.array([by_name.get(word, -1) if word is not None else -1 for word in words.to_list()])
        usable = np.flatnonzero(places >= 0)
        values = results.labels[np.maximum(places, 0)]
    if len(usable) < len(values):
        results.note(f"{len(values) - len(usable)} rows have no target that the model knows, and are not scored")
    if not len(usable):
        return
    results.data.target = values
    shares = None if predicted.shares is None else predicted.shares[usable]
    known = learning_results.Predicted(predicted.values[usable], shares)
    results.content["test"] = results.score(usable, known)
    learning_results.draw(results, usable, known, f"{record.estimator_class}, {len(usable):,} rows")
