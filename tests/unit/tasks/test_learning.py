"""What an ml task may say: every refusal names its field, and what is taken is taken as it was meant."""

import pytest

from hivemind_worker import errors
from hivemind_worker.tasks import estimators, learning, spec

IRIS = {"model_type": "scikit-learn", "training_data": {"dataset": "iris"}}
ROWS = [{"x": 1, "y": "a"}, {"x": 2.5, "y": None}]


def taken(**fields: object) -> learning.Learning:
    found = spec.parse({**IRIS, **fields}).learning
    assert found is not None
    return found


def refused(**fields: object) -> tuple[str, str]:
    with pytest.raises(errors.InvalidTask) as caught:
        spec.parse({key: value for key, value in {**IRIS, **fields}.items() if value is not None})
    return caught.value.field, str(caught.value)


def test_everything_that_may_be_said() -> None:
    found = taken(
        model_type="tensorflow",
        training_data="data/a.CSV",
        input_files={"data/a.CSV": "x,y\n1,2\n"},
        estimator="mlp",
        target="y",
        features=["x"],
        hyper_parameters={"hidden_layers": [8, 4], "dropout": 0.5, "optimizer": "sgd", "batch_normalization": True},
        problem="regression",
        test_size=0.25,
        seed=2**32 - 1,
        cross_validation=5,
        epochs=10,
        batch_size=64,
        early_stopping=3,
        options={"decimal": ",", "types": {"x": "number"}},
    )
    assert found.options == {"decimal": ",", "types": {"x": "number"}}
    assert (found.test_size, found.seed, found.cross_validation, found.early_stopping) == (0.25, 2**32 - 1, 5, 3)
    assert found.features == ("x",)


@pytest.mark.parametrize(
    ("model_type", "problem", "estimator"),
    [
        ("scikit-learn", "", "random_forest"),
        ("scikit-learn", "clustering", "k_means"),
        ("pytorch", "", "mlp"),
        ("tensorflow", "regression", "mlp"),
    ],
)
def test_without_an_estimator_there_is_a_default(model_type: str, problem: str, estimator: str) -> None:
    assert learning.estimator_of(taken(model_type=model_type, problem=problem)) == estimator


@pytest.mark.parametrize(
    "data",
    [
        ROWS,
        {"rows": ROWS},
        {"columns": {"x": [1, None, True], "y": ["a", "b", "c"]}},
    ],
)
def test_data_inside_the_task(data: object) -> None:
    found = taken(training_data=data, target="y")
    assert isinstance(found.training_data, dict)
    assert len(found.training_data) == 1


PREDICT = {"training_data": None, "model": "m", "predict_data": "a.csv", "input_files": {"m": "", "a.csv": ""}}


def test_a_task_that_predicts() -> None:
    found = spec.parse({"model_type": "scikit-learn", **PREDICT, "options": {"decimal": ","}}).learning
    assert found is not None
    assert (found.model, found.predict_data, found.options) == ("m", "a.csv", {"decimal": ","})
    assert (found.training_data, found.estimator) == (None, "")


def test_a_search_has_all_that_it_needs() -> None:
    found = taken(search={"parameters": {"max_depth": [1, None, 4.0]}}, class_weight={"a": 2}, missing="native")
    assert found.search == {"parameters": {"max_depth": [1, None, 4]}, "folds": 5, "score": "", "candidates": 0}
    assert (found.class_weight, found.missing, found.calibration) == ({"a": 2}, "native", "")


DEPTHS = {"max_depth": [1, 2]}


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("search", {"model_type": "pytorch", "search": {"parameters": DEPTHS}}),
        ("search", {"code": "pass", "search": {"parameters": DEPTHS}}),
        ("search", {"estimator": "k_means", "search": {"parameters": {"n_clusters": [2]}}}),
        ("search.rounds", {"search": {"parameters": DEPTHS, "rounds": 3}}),
        ("search.folds", {"search": {"parameters": DEPTHS, "folds": 1}}),
        ("search.score", {"search": {"parameters": DEPTHS, "score": "beauty"}}),
        ("search.parameters", {"search": {"folds": 3}}),
        ("search.parameters", {"search": {"parameters": {"max_depth": [*range(1, 50)], "ccp_alpha": [*range(30)]}}}),
        ("search.parameters.max_depth", {"search": {"parameters": {"max_depth": 3}}}),
        ("search.parameters.max_depth", {"search": {"parameters": DEPTHS}, "hyper_parameters": {"max_depth": 3}}),
        ("hyper_parameters.depth", {"search": {"parameters": {"depth": [3]}}}),
        ("class_weight", {"class_weight": "heavy"}),
        ("class_weight", {"class_weight": {}}),
        ("class_weight", {"class_weight": "balanced", "problem": "regression"}),
        ("class_weight", {"class_weight": "balanced", "hyper_parameters": {"class_weight": "balanced"}}),
        ("class_weight['a']", {"class_weight": {"a": 0}}),
        ("missing", {"missing": "guess"}),
        ("missing", {"missing": "native", "estimator": "svm"}),
        ("calibration", {"calibration": "magic"}),
        ("calibration", {"calibration": "sigmoid", "estimator": "ridge", "problem": "regression"}),
        ("model", {**PREDICT, "model": "b"}),
        ("model", {**PREDICT, "model_type": "pytorch"}),
        ("model", {"code": "pass", "model": "m", "input_files": {"m": ""}}),
        ("predict_data", {**PREDICT, "predict_data": None}),
        ("predict_data", {**PREDICT, "predict_data": "b.csv"}),
        ("predict_data", {"predict_data": ROWS}),
        ("predict_data.dataset", {**PREDICT, "predict_data": {"dataset": "iris"}}),
        ("target", {**PREDICT, "target": "y"}),
        ("training_data", {**PREDICT, "training_data": ROWS}),
        ("options", {**PREDICT, "predict_data": ROWS, "options": {"decimal": ","}}),
        ("model_type", {"model_type": "keras"}),
        ("training_data", {"training_data": None}),
        ("training_data", {"training_data": "a.csv"}),
        ("training_data", {"training_data": "a.pickle", "input_files": {"a.pickle": ""}}),
        ("training_data", {"training_data": 5}),
        ("training_data", {"training_data": {"dataset": "iris", "rows": ROWS}}),
        ("training_data", {"training_data": []}),
        ("training_data.dataset", {"training_data": {"dataset": "mnist"}}),
        ("training_data.url", {"training_data": {"url": "https://example.org/a.csv"}}),
        ("training_data.rows", {"training_data": {"rows": []}}),
        ("training_data.rows[1]", {"training_data": {"rows": [{"x": 1}, {"x": [1]}]}}),
        ("training_data.rows[0]", {"training_data": {"rows": [{"x": float("nan")}]}}),
        ("training_data.columns", {"training_data": {"columns": {}}}),
        ("training_data.columns['y']", {"training_data": {"columns": {"x": [1, 2], "y": [1]}}}),
        ("estimator", {"estimator": "deep_thought"}),
        ("estimator", {"estimator": "cnn"}),
        ("estimator", {"model_type": "pytorch", "estimator": "random_forest"}),
        ("estimator", {"model_type": "pytorch", "estimator": "cnn", "training_data": ROWS, "target": "y"}),
        ("estimator", {"model_type": "pytorch", "estimator": "cnn"}),
        ("estimator", {"model_type": "pytorch", "estimator": "MLPClassifier"}),
        ("estimator", {"code": "pass", "estimator": "svm"}),
        ("args", {"args": ["x"]}),
        ("target", {"training_data": ROWS}),
        ("features", {"target": "y", "features": ["x", "y"], "training_data": ROWS}),
        ("features", {"features": ["x", "x"]}),
        ("problem", {"problem": "magic"}),
        ("problem", {"estimator": "lasso", "problem": "classification"}),
        ("problem", {"estimator": "SVR", "problem": "classification"}),
        ("problem", {"model_type": "pytorch", "problem": "clustering"}),
        ("test_size", {"test_size": -0.1}),
        ("test_size", {"test_size": 0.99}),
        ("test_size", {"test_size": 10.5}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": 2**32}),
        ("cross_validation", {"cross_validation": 1}),
        ("cross_validation", {"cross_validation": 5, "problem": "clustering"}),
        ("options", {"options": {"decimal": ","}}),
        ("options", {"options": {"decimal": ","}, "training_data": ROWS, "target": "y"}),
        (
            "options.bins",
            {"options": {"bins": 5}, "training_data": "a.csv", "target": "y", "input_files": {"a.csv": ""}},
        ),
        ("epochs", {"epochs": 5}),
        ("batch_size", {"batch_size": 5}),
        ("early_stopping", {"early_stopping": 5}),
        ("hyper_parameters", {"hyper_parameters": [1]}),
        ("hyper_parameters.n_trees", {"hyper_parameters": {"n_trees": 5}}),
        ("hyper_parameters.C", {"hyper_parameters": {"C": 1.0}}),
        ("hyper_parameters.random_state", {"hyper_parameters": {"random_state": 1}}),
        ("hyper_parameters.n_jobs", {"hyper_parameters": {"n_jobs": 64}}),
        ("hyper_parameters.max_depth", {"hyper_parameters": {"max_depth": float("inf")}}),
        ("hyper_parameters.class_weight['a']", {"hyper_parameters": {"class_weight": {"a": {}}}}),
        ("hyper_parameters.alpha", {"code": "pass", "hyper_parameters": {"alpha": b"x"}}),
        ("hyper_parameters.dropout", {"model_type": "pytorch", "hyper_parameters": {"dropout": 1.0}}),
        ("hyper_parameters.hidden_layers", {"model_type": "pytorch", "hyper_parameters": {"hidden_layers": 5}}),
        ("hyper_parameters.hidden_layers[1]", {"model_type": "pytorch", "hyper_parameters": {"hidden_layers": [5, 0]}}),
        ("hyper_parameters.filters", {"model_type": "tensorflow", "hyper_parameters": {"filters": [5]}}),
        ("hyper_parameters.optimizer", {"model_type": "tensorflow", "hyper_parameters": {"optimizer": "lion"}}),
    ],
)
def test_every_refusal_names_its_field(field: str, fields: dict[str, object]) -> None:
    assert refused(**fields)[0] == field


def test_a_class_of_scikit_learn_is_known_by_its_own_name() -> None:
    found = taken(estimator="RandomForestClassifier", hyper_parameters={"class_weight": "balanced"})
    assert (found.estimator, found.problem) == ("random_forest", "classification")
    assert refused(estimator="RandomForestRegressor", hyper_parameters={"class_weight": "balanced"})[0].startswith(
        "hyper"
    )
    # What the pool sends on to a node is the same task again.
    assert taken(estimator=found.estimator, problem=found.problem, hyper_parameters=found.hyper_parameters) == found


def test_a_refusal_says_what_there_is() -> None:
    assert "random_forest, extra_trees" in refused(estimator="forest")[1]
    assert "n_estimators" in refused(hyper_parameters={"trees": 5})[1]
    assert "'a.csv'" in refused(training_data="b.csv", input_files={"a.csv": ""})[1]
    assert "seed" in refused(hyper_parameters={"random_state": 1})[1]


def test_code_of_ones_own_is_handed_what_it_likes() -> None:
    found = taken(
        code="pass", hyper_parameters={"depth": 3, "names": ["a"]}, epochs=7, problem="clustering", args=["x"]
    )
    assert found.hyper_parameters == {"depth": 3, "names": ["a"]}
    assert spec.parse({"model_type": "pytorch", "code": "pass"}).learning == learning.Learning("pytorch")


def test_whole_numbers_are_whole_however_they_were_written() -> None:
    # The wire knows doubles only: the pool must not see another task than the submitter checked.
    assert estimators.plain("x", [3.0, 0.5, True, None]) == [3, 0.5, True, None]
    assert isinstance(estimators.plain("x", 3.0), int)
