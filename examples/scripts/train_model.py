"""A model trained on a pool, from a table of yours: python train_model.py FILE.csv TARGET"""

import json
import sys
from pathlib import Path

from hivemind_worker import Client

table, target = sys.argv[1:]
with Client() as client:
    data = {"training_data": "table.csv", "target": target, "input_files": {"table.csv": {"file": table}}}
    task = {"model_type": "scikit-learn", "estimator": "gradient_boosting", "cross_validation": 3, "seed": 7, **data}
    (task_id,) = client.submit(task)
    (ended,) = client.wait(task_id)
    if ended.status != "completed":
        sys.exit("".join(piece.data.decode() for piece in client.logs(task_id)))
    client.download(task_id, "model-results")

metrics = json.loads(Path("model-results/metrics.json").read_text(encoding="utf-8"))
for score, value in metrics["test"].items():
    baseline = metrics["baseline"].get(score)
    print(f"{score:<24}{value:6.3f}" + (f"   ({baseline:.3f} without learning)" if baseline is not None else ""))
print("the model: model-results/model.joblib")
