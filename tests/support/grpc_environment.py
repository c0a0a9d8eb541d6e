"""Tells gRPC's core, as it is imported, that no process which a test forks goes on with gRPC.

By its own settings it does, on threads of its own, and writes to the standard error of what that process starts. How
events are handled is left as in any program that uses the client.
"""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
