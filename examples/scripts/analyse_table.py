"""Analyse tables on a pool, and open what came back: python analyse_table.py FILE.csv…"""

import json
import sys
from pathlib import Path

from hivemind_worker import Client

with Client() as client:  # the pool of `hivemind up` on this machine; another as Client("pool.example.org:50051")
    files = {Path(file).name: {"file": file} for file in sys.argv[1:]}
    task = {"processing_type": "csv_analysis", "input_data": list(files), "input_files": files}
    (task_id,) = client.submit(task)
    (ended,) = client.wait(task_id)
    if ended.status != "completed":
        sys.exit("".join(piece.data.decode() for piece in client.logs(task_id)))
    client.download(task_id, "table-results")

summary = json.loads(Path("table-results/summary.json").read_text(encoding="utf-8"))
for column in summary["columns"]:
    told = f"{column['min']} to {column['max']}" if "min" in column else f"{column['distinct']} different"
    print(f"{column['name']:<16}{column['type']:<10}{column['missing_percent']:>6.1f} % missing   {told}")
print("the report: table-results/report.html")
