"""What gRPC's core is told by the environment, before it is first imported. It reads nothing of that later."""

from __future__ import annotations

import os

SETTINGS = {
    # Its default writes to standard error, which is the tasks' here.
    "GRPC_VERBOSITY": "ERROR",
    # Handlers for processes that go on with gRPC after a fork: ours only ever start another program.
    "GRPC_ENABLE_FORK_SUPPORT": "false",
    # The event engine hands each event to one more thread before anybody hears of it, and to wake one takes as long as
    # to read a request. Without it the thread that reads the events tells of them: see docs/why/latency.md.
    "GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener",
}


def configure() -> None:
    """Set what the environment does not say itself. Call it in our own programs, before anything imports gRPC."""
    os.environ.pop("GRPC_TRACE", None)  # it would write messages, and what they carry, to standard error
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
