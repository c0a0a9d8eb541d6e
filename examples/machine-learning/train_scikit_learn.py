"""Searches the best support-vector machine for the wine data: what an ml task's own script may look like."""

import argparse
import json
import pathlib

import joblib
from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

parser = argparse.ArgumentParser()
parser.add_argument("--folds", type=int, default=3)
folds = parser.parse_args().folds
# What the task says of learning lies here, for whoever wants it.
said = json.loads(pathlib.Path(".hivemind/settings.json").read_text(encoding="utf-8"))

data = load_wine()
train_x, test_x, train_y, test_y = train_test_split(
    data.data, data.target, test_size=0.25, random_state=said["seed"], stratify=data.target
)
model = Pipeline([("scale", StandardScaler()), ("svm", SVC())])
grid = {f"svm__{name}": values for name, values in said["hyper_parameters"].items()}
search = GridSearchCV(model, grid, cv=folds).fit(train_x, train_y)
for parameters, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
    print(f"{parameters}: accuracy {score:.4f}")

metrics = {"best": search.best_params_, "folds": folds, "test_accuracy": search.score(test_x, test_y)}
print(metrics)
pathlib.Path("results/metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
joblib.dump(search.best_estimator_, "results/model.joblib")
