"""Pictures made small and put on one sheet, on a pool: python contact_sheet.py PICTURE…"""

import json
import sys
from pathlib import Path

from hivemind_worker import Client

STEPS = [{"op": "resize", "width": 1200, "enlarge": False}, {"op": "contact_sheet", "size": 200}]

with Client() as client:
    files = {Path(file).name: {"file": file} for file in sys.argv[1:]}
    task = {"processing_type": "image_processing", "input_data": list(files), "input_files": files, "steps": STEPS}
    (task_id,) = client.submit(task)
    (ended,) = client.wait(task_id)
    client.download(task_id, "picture-results")

summary = json.loads(Path("picture-results/summary.json").read_text(encoding="utf-8"))
for picture in summary["images"]:
    print(f"{picture['file']:<20}", picture.get("error") or f"{picture['width']}x{picture['height']}")
print(f"{ended.status}: picture-results/{', '.join(summary['contact_sheets'])}")
