"""What each text is about, in its own language, found on a pool: python keywords.py TEXT…"""

import json
import sys
from pathlib import Path

from hivemind_worker import Client

with Client() as client:
    files = {Path(file).name: {"file": file} for file in sys.argv[1:]}
    task = {"processing_type": "text_analysis", "input_data": list(files), "input_files": files}
    (task_id,) = client.submit(task)
    (ended,) = client.wait(task_id)
    if ended.status != "completed":
        sys.exit("".join(piece.data.decode() for piece in client.logs(task_id)))
    client.download(task_id, "text-results")

for text in json.loads(Path("text-results/summary.json").read_text(encoding="utf-8"))["documents"]:
    words = ", ".join(keyword["word"] for keyword in text["keywords"][:6])
    print(f"{text['file']} ({text['language']}, {text['sentences']} sentences): {words}")
print("the plot: text-results/plots.png")
