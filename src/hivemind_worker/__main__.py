"""The door: `hivemind`, `hivemind-worker` and `python -m hivemind_worker`."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

# What is imported stays: to look through it again and again for garbage takes a tenth of the time that imports take.
# `root` enables the collector when the verb's file is imported.
gc.disable()

from hivemind_worker.cli import root  # noqa: E402  (with the collector off)
from hivemind_worker.wire import grpc_core  # noqa: E402  (with the collector off)

# pydantic looks for plugins in all packages that are installed, a quarter of a command's start; we use none.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

grpc_core.configure()


def main() -> NoReturn:
    """`hivemind VERB …`."""
    root.run(sys.argv[1:])


def worker_main() -> NoReturn:
    """`hivemind-worker …`, which is `hivemind worker …`."""
    root.run(["worker", *sys.argv[1:]])


if __name__ == "__main__":
    main()
