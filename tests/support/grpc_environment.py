"""Tells gRPC's core, as it is imported, what our programs tell it.

By its own settings it goes on in every process that a test forks, on threads of its own, and writes to the standard
error of what that starts.
"""

from __future__ import annotations

from hivemind_worker.wire import grpc_core

grpc_core.configure()
