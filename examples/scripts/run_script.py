"""One script run many times at once on a pool, with another argument each time: python run_script.py SCRIPT.py ARG…"""

import sys

from hivemind_worker import Client

script, *arguments = sys.argv[1:]
with Client() as client:
    ids = client.submit([{"code": {"file": script}, "args": [argument]} for argument in arguments])
    failed = 0
    for argument, ended in zip(arguments, client.wait(ids), strict=True):
        print(f"{argument}: {ended.status}", ended.reason or "")
        failed += ended.status != "completed"
        for path in client.download(ended.id, f"script-results/{argument}"):
            print(f"  {path}, {path.stat().st_size} bytes")

sys.exit(1 if failed else 0)
