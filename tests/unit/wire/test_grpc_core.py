"""What gRPC's core is told: our defaults, and what the environment says before them."""

from __future__ import annotations

import os
import subprocess
import sys

from hivemind_worker.wire import grpc_core

SAY_SETTINGS = """
import os, sys
from hivemind_worker.wire import grpc_core
assert "grpc" not in sys.modules, "what is told after the import is not read"
grpc_core.configure()
import grpc
with grpc.insecure_channel("127.0.0.1:1"):
    print(*(os.environ[name] for name in grpc_core.SETTINGS), flush=True)
"""


def say_settings(**overrides: str) -> tuple[list[str], str]:
    """Return what a program of ours tells gRPC, and what it writes to standard error."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")} | overrides
    ended = subprocess.run(
        [sys.executable, "-c", SAY_SETTINGS], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return ended.stdout.split(), ended.stderr


def test_grpc_knows_each_setting_and_is_silent() -> None:
    assert say_settings() == (list(grpc_core.SETTINGS.values()), "")


def test_what_the_environment_says_is_left_alone() -> None:
    settings, _ = say_settings(GRPC_EXPERIMENTS="", GRPC_VERBOSITY="INFO")
    assert "INFO" in settings
    assert grpc_core.SETTINGS["GRPC_EXPERIMENTS"] not in settings
