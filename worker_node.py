"""Start a worker node from a checkout: `python worker_node.py --node-id=worker-001 --node-pool=localhost:50051`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))
try:
    from hivemind_worker.__main__ import worker_main
except ModuleNotFoundError as error:
    sys.exit(f"{error}: install the requirements first (`make setup`, then .venv/bin/python {sys.argv[0]} …)")
worker_main()
